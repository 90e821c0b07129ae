# Mask2Former over a frozen ViT-B of DINOv3 and an adapter without injectors; no published result of this size.
_base_ = [
    "../_base_/models/mask2former.py",
    "../_base_/backbones/adapter_dinov3_vit_b.py",
    "../_base_/datasets/ade20k_512.py",
    "../_base_/schedules/adamw_160k.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(_base_.backbone, img_size=_base_.crop_size),
    decode_head=dict(num_classes=_base_.num_classes),
)
