# From random weights in 1500 iterations: higher learning rate, backbone as fast as the head.
_base_ = "./adamw_160k.py"
from mmseg_m2f.config.recipes import poly_schedule

optim_wrapper = dict(optimizer=dict(lr=6e-4), paramwise_cfg=dict(backbone_lr_mult=1.0))
max_iters, param_scheduler, train_cfg = poly_schedule(1500, warmup=100, warmup_factor=0.01, val_interval=250)
