# MaskFormer, ADE20K semantic, Swin-T: published recipe.
_base_ = [
    "../_base_/models/maskformer.py",
    "../_base_/backbones/swin_t.py",
    "../_base_/datasets/ade20k_512.py",
    "../_base_/schedules/adamw_maskformer_swin_160k.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(num_classes=_base_.num_classes),
)
