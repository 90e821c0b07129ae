# From random weights in 1500 iterations: higher learning rate, backbone as fast as the head.
_base_ = "./adamw_160k.py"
max_iters = 1500
optim_wrapper = dict(optimizer=dict(lr=6e-4), paramwise_cfg=dict(backbone_lr_mult=1.0))
param_scheduler = [
    dict(type="mmengine.LinearLR", start_factor=0.01, begin=0, end=100, by_epoch=False),
    dict(type="mmengine.PolyLR", eta_min=0.0, power=0.9, begin=100, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=250)
