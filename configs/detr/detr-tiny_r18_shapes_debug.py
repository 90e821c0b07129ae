# Does everything run? Small DETR with masks, 40 iterations on generated objects.
_base_ = [
    "../_base_/models/detr_tiny.py",
    "../_base_/backbones/r18_from_scratch.py",
    "../_base_/datasets/shapes_instance.py",
    "../_base_/schedules/adamw_scratch_40.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="AP"))
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    thing_classes=_base_.thing_classes,
    decode_head=dict(num_classes=_base_.num_classes),
    test_cfg=dict(panoptic=False),
)
