# SegNeXt's recipe (arXiv 2209.08575, section 4.1): head ten times faster, linear warm-up, straight decay. As published,
# norms are not decayed in the backbone but are in the head: of two keys that fit, mmengine takes "head".
_base_ = "./adamw_160k.py"
from mmseg_m2f.config.recipes import poly_schedule

optim_wrapper = dict(
    constructor="mmengine.DefaultOptimWrapperConstructor",
    optimizer=dict(lr=6e-5, weight_decay=0.01),
    clip_grad=None,
    paramwise_cfg=dict(
        _delete_=True,
        norm_decay_mult=0.0,  # for the two norms of the stem, whose names lack "norm"
        custom_keys={"head": dict(lr_mult=10.0), "norm": dict(decay_mult=0.0)},
    ),
)
max_iters, param_scheduler, train_cfg = poly_schedule(160000, power=1.0, warmup=1500)
sync_bn = "torch"  # batch norm over all GPUs, where there are several
