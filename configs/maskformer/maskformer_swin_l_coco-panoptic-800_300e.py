# MaskFormer, COCO panoptic, Swin-L: published recipe, 300 epochs of batches of 64.
_base_ = [
    "../_base_/models/maskformer_panoptic.py",
    "../_base_/backbones/swin_l.py",
    "../_base_/datasets/coco_panoptic_800_long1000.py",
    "../_base_/schedules/adamw_maskformer_coco_swin_300e.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="PQ"))
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    thing_classes=_base_.thing_classes,
    decode_head=dict(num_classes=_base_.num_classes),
)
