# Mask2Former, Mapillary Vistas v1.2 panoptic, R50: published recipe.
_base_ = [
    "../_base_/models/mask2former_panoptic.py",
    "../_base_/backbones/r50.py",
    "../_base_/datasets/mapillary_panoptic_1024.py",
    "../_base_/schedules/adamw_300k.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="PQ"))
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    thing_classes=_base_.thing_classes,
    decode_head=dict(num_classes=_base_.num_classes),
    test_cfg=dict(object_threshold=0.0),
)
