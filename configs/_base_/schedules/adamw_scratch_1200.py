# From random weights in 1200 iterations: what a small vision transformer needs for the generated shapes.
_base_ = "./adamw_scratch_1500.py"
from mmseg_m2f.config.recipes import poly_schedule

max_iters, param_scheduler, train_cfg = poly_schedule(1200, warmup=100, warmup_factor=0.01, val_interval=200)
