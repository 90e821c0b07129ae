# Mask DINO, COCO objects, Swin-L: published recipe, all its maps in the encoder, 50 epochs.
_base_ = [
    "../_base_/models/mask_dino_instance.py",
    "../_base_/backbones/swin_l.py",
    "../_base_/datasets/coco_instance_1024.py",
    "../_base_/schedules/adamw_coco_50e.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="AP"))
val_evaluator = [dict(type="mmseg_m2f.MaskAP"), dict(type="mmseg_m2f.MaskAP", boxes=True)]
test_evaluator = val_evaluator
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    thing_classes=list(range(_base_.num_classes)),
    decode_head=dict(num_classes=_base_.num_classes, pixel_decoder=dict(num_levels=4)),
)
