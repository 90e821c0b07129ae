# Mask2Former as published, CamVid, EfficientNet-Lite0 with the ImageNet weights of a package; see the folder's README.
_base_ = [
    "../_base_/models/mask2former.py",
    "../_base_/backbones/efficientnet_lite0.py",
    "../_base_/datasets/camvid_360x480.py",
    "../_base_/schedules/adamw_finetune_2000.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=dict(_base_.data_preprocessor, **_base_.normalization),
    backbone=_base_.backbone,
    decode_head=dict(num_classes=_base_.num_classes),
)
