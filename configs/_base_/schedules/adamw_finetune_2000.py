# From ImageNet weights in 2000 iterations of batch 8 or 16: twice the published rate, backbone at 0.3 of it, warm-up.
_base_ = "./adamw_160k.py"
from mmseg_m2f.config.recipes import poly_schedule

optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(backbone_lr_mult=0.3))
max_iters, param_scheduler, train_cfg = poly_schedule(2000, warmup=100, warmup_factor=0.01, val_interval=500)
