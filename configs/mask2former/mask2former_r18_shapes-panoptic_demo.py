# Panoptic segmentation of generated shapes from random weights, a few minutes on two CPU cores.
_base_ = [
    "../_base_/models/mask2former_tiny_panoptic.py",
    "../_base_/backbones/r18_stride2_from_scratch.py",
    "../_base_/datasets/shapes_panoptic.py",
    "../_base_/schedules/adamw_scratch_1500.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="PQ"))
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    thing_classes=_base_.thing_classes,
    decode_head=dict(num_classes=_base_.num_classes),
)
