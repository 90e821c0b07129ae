# EoMT, COCO panoptic, ViT-B of DINOv2: published recipe, 24 epochs, three joint blocks.
_base_ = [
    "../_base_/models/eomt_panoptic.py",
    "../_base_/backbones/dinov2_vit_b.py",
    "../_base_/datasets/coco_panoptic_640.py",
    "../_base_/schedules/adamw_eomt_coco_24e.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="PQ"))
custom_hooks = [*_base_.custom_hooks, *_base_.schedule_hooks]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(_base_.backbone, img_size=_base_.crop_size, num_joint_blocks=3),
    thing_classes=_base_.thing_classes,
    decode_head=dict(num_classes=_base_.num_classes),
)
