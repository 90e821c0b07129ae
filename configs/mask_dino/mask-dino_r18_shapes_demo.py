# Label maps of generated shapes from random weights.
_base_ = [
    "../_base_/models/mask_dino_tiny_semantic.py",
    "../_base_/backbones/r18_from_scratch.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/adamw_scratch_800.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(num_classes=_base_.num_classes),
)
