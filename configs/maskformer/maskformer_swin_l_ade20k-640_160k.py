# MaskFormer, ADE20K semantic, Swin-L, 640 x 640 crops: published recipe.
_base_ = [
    "../_base_/models/maskformer.py",
    "../_base_/backbones/swin_l.py",
    "../_base_/datasets/ade20k_640.py",
    "../_base_/schedules/adamw_maskformer_swin_160k.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(num_classes=_base_.num_classes),
)
