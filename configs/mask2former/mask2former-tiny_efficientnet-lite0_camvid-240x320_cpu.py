# Small Mask2Former for CamVid on a CPU core in half an hour, EfficientNet-Lite0 with the ImageNet weights of a package.
_base_ = [
    "../_base_/models/mask2former_tiny.py",
    "../_base_/backbones/efficientnet_lite0.py",
    "../_base_/datasets/camvid_240x320.py",
    "../_base_/schedules/adamw_finetune_2000.py",
    "../_base_/runtime.py",
]
lr = 4e-4
model = dict(
    data_preprocessor=dict(_base_.data_preprocessor, **_base_.normalization),
    backbone=_base_.backbone,
    decode_head=dict(num_classes=_base_.num_classes),
)
