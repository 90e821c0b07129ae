# SegViT's recipe for ADE20K (arXiv 2210.05844, section 4.2): head ten times faster, linear warm-up. As published, norms
# are not decayed in the backbone but are in the head: of two keys that fit mmengine takes the longer one, and of two
# equally long ones the first in the alphabet.
_base_ = "./adamw_160k.py"
optim_wrapper = dict(
    constructor="mmengine.DefaultOptimWrapperConstructor",
    optimizer=dict(lr=2e-5, weight_decay=0.01),
    clip_grad=dict(max_norm=35.0, norm_type=2),
    paramwise_cfg=dict(
        _delete_=True,
        custom_keys={"head": dict(lr_mult=10.0), "norm": dict(decay_mult=0.0), "ln": dict(decay_mult=0.0)},
    ),
)
param_scheduler = [
    dict(type="mmengine.LinearLR", start_factor=1e-6, begin=0, end=1500, by_epoch=False),
    dict(type="mmengine.PolyLR", eta_min=0.0, power=1.0, begin=1500, end=_base_.max_iters, by_epoch=False),
]
