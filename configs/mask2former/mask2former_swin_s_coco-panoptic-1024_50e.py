# Mask2Former, COCO panoptic, Swin-S: published recipe, 50 epochs.
_base_ = [
    "../_base_/models/mask2former_panoptic.py",
    "../_base_/backbones/swin_s.py",
    "../_base_/datasets/coco_panoptic_1024.py",
    "../_base_/schedules/adamw_coco_50e.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="PQ"))
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    thing_classes=_base_.thing_classes,
    decode_head=dict(num_classes=_base_.num_classes),
)
