# PMT's blocks behind a small transformer learn generated shapes from random weights; both are trained.
_base_ = [
    "../_base_/models/eomt_tiny.py",
    "../_base_/backbones/tokens_vit_tiny_from_scratch.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/adamw_scratch_800.py",
    "../_base_/runtime.py",
]
custom_hooks = [
    *_base_.custom_hooks,
    dict(type="mmseg_m2f.MaskAnnealing", blocks=[(0.1, 0.5), (0.4, 0.8)]),
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    neck=_base_.neck,
    decode_head=dict(num_classes=_base_.num_classes),
)
