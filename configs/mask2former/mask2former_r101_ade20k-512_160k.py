# Mask2Former, ADE20K semantic, R101: published recipe.
_base_ = [
    "../_base_/models/mask2former.py",
    "../_base_/backbones/r101.py",
    "../_base_/datasets/ade20k_512.py",
    "../_base_/schedules/adamw_160k.py",
    "../_base_/runtime.py",
]
sync_bn = "torch"
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone | dict(norm_cfg=dict(type="BN"), norm_eval=False),
    decode_head=dict(num_classes=_base_.num_classes),
)
