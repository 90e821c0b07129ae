# ECENet on ADE20K, Swin-B. Its schedule was not published; this is what Swin is trained with elsewhere.
_base_ = [
    "../_base_/models/ecenet.py",
    "../_base_/backbones/swin_b.py",
    "../_base_/datasets/ade20k_wide_ratio_640.py",
    "../_base_/schedules/adamw_per_pixel_160k.py",
    "../_base_/runtime_per_pixel.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(in_channels=[128, 256, 512, 1024], num_classes=_base_.num_classes),
    test_cfg=dict(mode="slide", crop_size=_base_.crop_size, stride=(608, 608)),
)
