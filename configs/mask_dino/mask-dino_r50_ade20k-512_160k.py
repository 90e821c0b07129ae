# Mask DINO, ADE20K semantic, R50: published recipe.
_base_ = [
    "../_base_/models/mask_dino_semantic.py",
    "../_base_/backbones/r50.py",
    "../_base_/datasets/ade20k_512.py",
    "../_base_/schedules/adamw_step_160k.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(num_classes=_base_.num_classes),
)
