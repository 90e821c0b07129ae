# From random weights in 4000 iterations: what many small objects need at least.
_base_ = "./adamw_scratch_1500.py"
from mmseg_m2f.config.recipes import poly_schedule

max_iters, param_scheduler, train_cfg = poly_schedule(4000, warmup=100, warmup_factor=0.01, val_interval=500)
