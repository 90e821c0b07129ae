# Mask2Former, Cityscapes panoptic, Swin-S: published recipe.
_base_ = [
    "../_base_/models/mask2former_panoptic.py",
    "../_base_/backbones/swin_s.py",
    "../_base_/datasets/cityscapes_panoptic_512x1024.py",
    "../_base_/schedules/adamw_90k.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="PQ"))
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    thing_classes=_base_.thing_classes,
    decode_head=dict(num_classes=_base_.num_classes),
)
