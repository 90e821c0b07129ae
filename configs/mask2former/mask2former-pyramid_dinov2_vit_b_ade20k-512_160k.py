# Mask2Former over ViT-B of DINOv2 and its simple pyramid, all of it trained; no published result.
_base_ = [
    "../_base_/models/mask2former.py",
    "../_base_/backbones/pyramid_dinov2_vit_b.py",
    "../_base_/datasets/ade20k_512.py",
    "../_base_/schedules/adamw_160k.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(_base_.backbone, img_size=_base_.crop_size),
    neck=_base_.neck,
    decode_head=dict(num_classes=_base_.num_classes),
)
