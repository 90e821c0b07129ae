# What mmseg trains convolutional networks with; everything is decayed, norms too. Batch 16.
_base_ = "./adamw_160k.py"
optim_wrapper = dict(
    _delete_=True,
    type="mmengine.OptimWrapper",
    optimizer=dict(type="mmengine.SGD", lr=0.01, momentum=0.9, weight_decay=5e-4),
)
param_scheduler = [
    dict(type="mmengine.PolyLR", eta_min=1e-4, power=0.9, begin=0, end=_base_.max_iters, by_epoch=False),
]
sync_bn = "torch"  # batch norm over all GPUs, where there are several
