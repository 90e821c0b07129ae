# 40 iterations, to see whether everything runs.
_base_ = "./adamw_scratch_1500.py"
from mmseg_m2f.config.recipes import poly_schedule

max_iters, param_scheduler, train_cfg = poly_schedule(40, warmup=10, warmup_factor=0.01, val_interval=20)
