# The second task: the other three classes. Start from the first's checkpoint with --cfg-options load_from=PATH.
_base_ = [
    "../_base_/models/segvit_tiny_continual.py",
    "../_base_/backbones/vit_tiny_from_scratch.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/adamw_scratch_800.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=dict(_base_.data_preprocessor, **_base_.normalization),
    backbone=dict(_base_.backbone, img_size=_base_.crop_size),
    trainable=["decode_head."],
    decode_head=dict(num_classes=_base_.num_classes),
)
