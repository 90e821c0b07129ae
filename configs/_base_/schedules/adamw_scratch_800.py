# From random weights in 800 iterations: what the generated shapes need.
_base_ = "./adamw_scratch_1500.py"
from mmseg_m2f.config.recipes import poly_schedule

max_iters, param_scheduler, train_cfg = poly_schedule(800, warmup=100, warmup_factor=0.01, val_interval=200)
