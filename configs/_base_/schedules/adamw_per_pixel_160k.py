# What Swin is trained with below per-pixel heads (arXiv 2103.14030, appendix): backbone as fast as the head, linear
# warm-up, straight decay, gradients not clipped. Batch 16.
_base_ = "./adamw_160k.py"
from mmseg_m2f.config.recipes import poly_schedule

optim_wrapper = dict(
    optimizer=dict(lr=6e-5, weight_decay=0.01), clip_grad=None, paramwise_cfg=dict(backbone_lr_mult=1.0)
)
max_iters, param_scheduler, train_cfg = poly_schedule(160000, power=1.0, warmup=1500)
sync_bn = "torch"  # batch norm over all GPUs, where there are several
