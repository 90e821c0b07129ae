# PMT, COCO objects, ViT-L of DINOv3, frozen: published recipe, 12 epochs.
_base_ = [
    "../_base_/models/eomt_instance.py",
    "../_base_/backbones/tokens_dinov3_vit_l.py",
    "../_base_/datasets/coco_instance_640.py",
    "../_base_/schedules/adamw_pmt_coco_12e.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="AP"))
custom_hooks = [*_base_.custom_hooks, *_base_.schedule_hooks]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(_base_.backbone, img_size=_base_.crop_size),
    neck=_base_.neck,
    thing_classes=list(range(_base_.num_classes)),
    decode_head=dict(num_classes=_base_.num_classes),
)
