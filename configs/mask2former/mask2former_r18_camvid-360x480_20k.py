# Mask2Former, CamVid, R18 with ImageNet weights.
_base_ = [
    "../_base_/models/mask2former.py",
    "../_base_/backbones/r18.py",
    "../_base_/datasets/camvid_360x480.py",
    "../_base_/schedules/adamw_20k.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(num_classes=_base_.num_classes),
)
