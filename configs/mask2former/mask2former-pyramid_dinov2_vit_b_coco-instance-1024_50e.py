# Objects of COCO over ViT-B of DINOv2 and its simple pyramid; no published result.
_base_ = [
    "../_base_/models/mask2former_instance.py",
    "../_base_/backbones/pyramid_dinov2_vit_b.py",
    "../_base_/datasets/coco_instance_1024.py",
    "../_base_/schedules/adamw_coco_50e.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="AP"))
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    neck=_base_.neck,
    thing_classes=list(range(_base_.num_classes)),
    decode_head=dict(num_classes=_base_.num_classes),
)
