# Mask2Former, ADE20K semantic, timm's EfficientNetV2-S: the published recipe with another backbone.
_base_ = [
    "../_base_/models/mask2former.py",
    "../_base_/backbones/timm_efficientnetv2_s.py",
    "../_base_/datasets/ade20k_512.py",
    "../_base_/schedules/adamw_160k.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=dict(_base_.data_preprocessor, **_base_.normalization),
    backbone=_base_.backbone,
    decode_head=dict(num_classes=_base_.num_classes),
)
