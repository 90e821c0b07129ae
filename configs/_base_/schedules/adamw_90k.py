# The published recipe over 90,000 iterations.
_base_ = "./adamw_160k.py"
from mmseg_m2f.config.recipes import poly_schedule

max_iters, param_scheduler, train_cfg = poly_schedule(90000)
