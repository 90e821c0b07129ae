# DETR R50 with a coarsest map of stride 16, boxes of COCO. One image per GPU, as published.
_base_ = [
    "../_base_/models/detr.py",
    "../_base_/backbones/r50_dc5.py",
    "../_base_/datasets/coco_detection_800.py",
    "../_base_/schedules/adamw_detr_500e.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="coco/bbox_mAP"))
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    thing_classes=list(range(_base_.num_classes)),
    decode_head=dict(num_classes=_base_.num_classes),
)
