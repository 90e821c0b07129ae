# DETR's schedule on COCO in batches of 16: 150 epochs, learning rate divided by 10 after 100; everything is decayed.
_base_ = "./adamw_160k.py"
from mmseg_m2f.config.recipes import step_schedule

optim_wrapper = dict(
    constructor="mmengine.DefaultOptimWrapperConstructor",
    optimizer=dict(lr=1e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(_delete_=True, custom_keys={"backbone": dict(lr_mult=0.1, decay_mult=1.0)}),
)
max_iters, param_scheduler, train_cfg = step_schedule(1108950, milestones=[739300])
