# Mask2Former, ADE20K objects, R50: published recipe.
_base_ = [
    "../_base_/models/mask2former_instance.py",
    "../_base_/backbones/r50.py",
    "../_base_/datasets/ade20k_instance_640.py",
    "../_base_/schedules/adamw_160k.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="AP"))
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    thing_classes=list(range(_base_.num_classes)),
    decode_head=dict(num_classes=_base_.num_classes),
)
