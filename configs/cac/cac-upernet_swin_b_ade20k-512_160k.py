# UPerNet with the context-aware classifier on ADE20K, Swin-B: the published recipe.
_base_ = [
    "../_base_/models/upernet.py",
    "../_base_/backbones/swin_b.py",
    "../_base_/datasets/ade20k_ratio_512.py",
    "../_base_/schedules/adamw_per_pixel_160k.py",
    "../_base_/runtime_per_pixel.py",
]
host = dict(_base_.model.decode_head, in_channels=[128, 256, 512, 1024], num_classes=_base_.num_classes)
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(_delete_=True, type="mmseg_m2f.ContextAwareHead", host=host),
    auxiliary_head=dict(in_channels=512, num_classes=_base_.num_classes),
)
