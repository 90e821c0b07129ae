# EoMT learns generated shapes from random weights, in minutes on a CPU core.
_base_ = [
    "../_base_/models/eomt_tiny.py",
    "../_base_/backbones/timm_vit_tiny_from_scratch.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/adamw_scratch_1200.py",
    "../_base_/runtime.py",
]
custom_hooks = [*_base_.custom_hooks, dict(type="mmseg_m2f.MaskAnnealing", length=1 / 3)]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(_base_.backbone, img_size=_base_.crop_size),
    decode_head=dict(num_classes=_base_.num_classes),
)
