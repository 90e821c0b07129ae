# Mask2Former over a plain vision transformer and its simple pyramid, on generated shapes, from random weights, in
# minutes on a CPU core.
_base_ = [
    "../_base_/models/mask2former_tiny.py",
    "../_base_/backbones/pyramid_vit_tiny_from_scratch.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/adamw_scratch_300.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    neck=_base_.neck,
    decode_head=dict(num_classes=_base_.num_classes),
)
