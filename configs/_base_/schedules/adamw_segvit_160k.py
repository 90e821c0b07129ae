# SegViT's recipe for ADE20K (arXiv 2210.05844, section 4.2): head ten times faster, linear warm-up. As published, norms
# are not decayed in the backbone but are in the head: of two keys that fit mmengine takes the longer one, and of two
# equally long ones the first in the alphabet.
_base_ = "./adamw_160k.py"
from mmseg_m2f.config.recipes import poly_schedule

optim_wrapper = dict(
    constructor="mmengine.DefaultOptimWrapperConstructor",
    optimizer=dict(lr=2e-5, weight_decay=0.01),
    clip_grad=dict(max_norm=35.0, norm_type=2),
    paramwise_cfg=dict(
        _delete_=True,
        custom_keys={"head": dict(lr_mult=10.0), "norm": dict(decay_mult=0.0), "ln": dict(decay_mult=0.0)},
    ),
)
max_iters, param_scheduler, train_cfg = poly_schedule(160000, power=1.0, warmup=1500)
