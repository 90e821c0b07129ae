# EoMT, COCO objects, ViT-L of DINOv2, 1280 pixels: published recipe, 12 epochs.
_base_ = [
    "../_base_/models/eomt_instance.py",
    "../_base_/backbones/dinov2_vit_l.py",
    "../_base_/datasets/coco_instance_1280.py",
    "../_base_/schedules/adamw_eomt_coco_12e.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="AP"))
custom_hooks = [*_base_.custom_hooks, *_base_.schedule_hooks]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(_base_.backbone, img_size=_base_.crop_size),
    thing_classes=list(range(_base_.num_classes)),
    decode_head=dict(num_classes=_base_.num_classes),
)
