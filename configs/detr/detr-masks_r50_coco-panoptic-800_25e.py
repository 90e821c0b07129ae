# DETR's mask head; give the trained DETR with --cfg-options load_from=PATH.
_base_ = [
    "../_base_/models/detr_panoptic.py",
    "../_base_/backbones/r50_detr.py",
    "../_base_/datasets/coco_panoptic_800.py",
    "../_base_/schedules/adamw_detr_masks_25e.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="PQ"))
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    thing_classes=_base_.thing_classes,
    decode_head=dict(num_classes=_base_.num_classes),
)
