# Mask2Former, ADE20K panoptic, R50: published recipe.
_base_ = [
    "../_base_/models/mask2former_panoptic.py",
    "../_base_/backbones/r50.py",
    "../_base_/datasets/ade20k_panoptic_640.py",
    "../_base_/schedules/adamw_160k.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="PQ"))
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    thing_classes=_base_.thing_classes,
    decode_head=dict(num_classes=_base_.num_classes),
)
