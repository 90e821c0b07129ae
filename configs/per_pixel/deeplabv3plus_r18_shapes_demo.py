# DeepLabV3+ as it is on generated shapes from random weights: what the context-aware classifier is compared with.
_base_ = [
    "../_base_/models/deeplabv3plus_tiny.py",
    "../_base_/backbones/r18_d8_from_scratch.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/adamw_scratch_800.py",
    "../_base_/runtime_per_pixel.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(in_channels=512, c1_in_channels=64, num_classes=_base_.num_classes),
    auxiliary_head=dict(in_channels=256, num_classes=_base_.num_classes),
)
