# Mask DINO, Cityscapes semantic, R50: published recipe (synchronised batch norm).
_base_ = [
    "../_base_/models/mask_dino_semantic.py",
    "../_base_/backbones/r50.py",
    "../_base_/datasets/cityscapes_512x1024.py",
    "../_base_/schedules/adamw_step_90k.py",
    "../_base_/runtime.py",
]
sync_bn = "torch"
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone | dict(norm_cfg=dict(type="BN"), norm_eval=False),
    decode_head=dict(num_classes=_base_.num_classes),
)
