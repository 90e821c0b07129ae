# Context Cluster's recipe for Semantic FPN, which is PVT's: one learning rate, no warm-up, no clipping. Batch 16.
_base_ = "./adamw_80k.py"
optim_wrapper = dict(
    constructor="mmengine.DefaultOptimWrapperConstructor",
    optimizer=dict(weight_decay=1e-4),
    clip_grad=None,
    paramwise_cfg=None,
)
sync_bn = "torch"  # batch norm over all GPUs, where there are several
