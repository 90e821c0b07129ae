# Mask2Former, Cityscapes semantic, Swin-T: published recipe.
_base_ = [
    "../_base_/models/mask2former.py",
    "../_base_/backbones/swin_t.py",
    "../_base_/datasets/cityscapes_512x1024.py",
    "../_base_/schedules/adamw_90k.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(num_classes=_base_.num_classes),
)
