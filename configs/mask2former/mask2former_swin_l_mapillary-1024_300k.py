# Mask2Former, Mapillary Vistas v1.2 semantic, Swin-L: published recipe.
_base_ = [
    "../_base_/models/mask2former.py",
    "../_base_/backbones/swin_l.py",
    "../_base_/datasets/mapillary_1024.py",
    "../_base_/schedules/adamw_300k.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(num_classes=_base_.num_classes),
)
