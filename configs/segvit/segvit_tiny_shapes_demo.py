# A small SegViT on generated shapes from random weights, minutes on a CPU core.
_base_ = [
    "../_base_/models/segvit_tiny.py",
    "../_base_/backbones/vit_tiny_from_scratch.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/adamw_scratch_800.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=dict(_base_.data_preprocessor, **_base_.normalization),
    backbone=dict(_base_.backbone, img_size=_base_.crop_size),
    decode_head=dict(num_classes=_base_.num_classes),
)
