# Mask DINO, COCO panoptic, R50: published recipe, 50 epochs.
_base_ = [
    "../_base_/models/mask_dino_panoptic.py",
    "../_base_/backbones/r50.py",
    "../_base_/datasets/coco_panoptic_1024.py",
    "../_base_/schedules/adamw_coco_50e.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="PQ"))
val_evaluator = [*_base_.val_evaluator, dict(type="mmseg_m2f.MaskAP", boxes=True)]
test_evaluator = val_evaluator
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    thing_classes=_base_.thing_classes,
    decode_head=dict(num_classes=_base_.num_classes),
)
