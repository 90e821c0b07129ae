# The published recipe over 20,000 iterations, for small data sets.
_base_ = "./adamw_160k.py"
from mmseg_m2f.config.recipes import poly_schedule

max_iters, param_scheduler, train_cfg = poly_schedule(20000, val_interval=1000)
