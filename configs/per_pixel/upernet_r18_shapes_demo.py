# UPerNet as it is on generated shapes from random weights: what the context-aware classifier is compared with.
_base_ = [
    "../_base_/models/upernet_tiny.py",
    "../_base_/backbones/r18_from_scratch.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/adamw_scratch_800.py",
    "../_base_/runtime_per_pixel.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(in_channels=[64, 128, 256, 512], num_classes=_base_.num_classes),
    auxiliary_head=dict(in_channels=256, num_classes=_base_.num_classes),
)
