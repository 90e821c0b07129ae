# PMT, ADE20K semantic, ViT-L of DINOv3, frozen: published recipe, 16 epochs; tests in square windows.
_base_ = [
    "../_base_/models/eomt.py",
    "../_base_/backbones/tokens_dinov3_vit_l.py",
    "../_base_/datasets/ade20k_512.py",
    "../_base_/schedules/adamw_pmt_ade20k_16e.py",
    "../_base_/runtime.py",
]
custom_hooks = [*_base_.custom_hooks, *_base_.schedule_hooks]
model = dict(
    data_preprocessor=dict(_base_.data_preprocessor, test_cfg=dict(size=_base_.crop_size)),
    backbone=dict(_base_.backbone, img_size=_base_.crop_size),
    neck=_base_.neck,
    decode_head=dict(num_classes=_base_.num_classes),
    test_cfg=dict(mode="slide", crop_size=_base_.crop_size, stride=_base_.crop_size),
)
