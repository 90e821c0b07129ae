# Semantic FPN over a small Context Cluster on generated shapes, from random weights, some minutes on a CPU core.
_base_ = [
    "../_base_/models/semantic_fpn_tiny.py",
    "../_base_/backbones/coc_tiny_from_scratch.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/adamw_scratch_1500.py",
    "../_base_/runtime_per_pixel.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    neck=dict(in_channels=_base_.backbone_channels),
    decode_head=dict(num_classes=_base_.num_classes),
)
