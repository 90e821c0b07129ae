# From random weights in 300 iterations: what a small vision transformer with a pyramid needs for the generated shapes.
_base_ = "./adamw_scratch_1500.py"
from mmseg_m2f.config.recipes import poly_schedule

max_iters, param_scheduler, train_cfg = poly_schedule(300, warmup=50, warmup_factor=0.01, val_interval=150)
