# MaskFormer's recipe for Swin (arXiv 2107.06278, section 4.2): backbone as fast as the head, linear warm-up.
_base_ = "./adamw_160k.py"
from mmseg_m2f.config.recipes import poly_schedule

optim_wrapper = dict(optimizer=dict(lr=6e-5, weight_decay=0.01), paramwise_cfg=dict(backbone_lr_mult=1.0))
max_iters, param_scheduler, train_cfg = poly_schedule(160000, warmup=1500)
