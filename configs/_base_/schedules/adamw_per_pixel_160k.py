# What Swin is trained with below per-pixel heads (arXiv 2103.14030, appendix): backbone as fast as the head, linear
# warm-up, straight decay, gradients not clipped. Batch 16.
_base_ = "./adamw_160k.py"
optim_wrapper = dict(
    optimizer=dict(lr=6e-5, weight_decay=0.01), clip_grad=None, paramwise_cfg=dict(backbone_lr_mult=1.0)
)
param_scheduler = [
    dict(type="mmengine.LinearLR", start_factor=1e-6, begin=0, end=1500, by_epoch=False),
    dict(type="mmengine.PolyLR", eta_min=0.0, power=1.0, begin=1500, end=_base_.max_iters, by_epoch=False),
]
sync_bn = "torch"  # batch norm over all GPUs, where there are several
