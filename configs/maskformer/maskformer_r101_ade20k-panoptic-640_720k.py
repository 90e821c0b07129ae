# MaskFormer, ADE20K panoptic, R101: published recipe.
_base_ = [
    "../_base_/models/maskformer_transformer_fpn_panoptic.py",
    "../_base_/backbones/r101.py",
    "../_base_/datasets/ade20k_panoptic_640.py",
    "../_base_/schedules/adamw_maskformer_720k.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="PQ"))
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    thing_classes=_base_.thing_classes,
    decode_head=dict(num_classes=_base_.num_classes),
    test_cfg=dict(object_threshold=0.7),
)
