# SegViT, ADE20K, ViT-L, 640 x 640 crops: published recipe.
_base_ = [
    "../_base_/models/segvit.py",
    "../_base_/backbones/vit_l.py",
    "../_base_/datasets/ade20k_ratio_640.py",
    "../_base_/schedules/adamw_segvit_160k.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=dict(_base_.data_preprocessor, **_base_.normalization),
    backbone=dict(_base_.backbone, img_size=_base_.crop_size),
    decode_head=dict(num_classes=_base_.num_classes),
    test_cfg=dict(mode="slide", crop_size=_base_.crop_size, stride=(608, 608)),
)
