# Mask2Former, ADE20K semantic, MSCAN-T: the published recipe with another backbone.
_base_ = [
    "../_base_/models/mask2former.py",
    "../_base_/backbones/mscan_t.py",
    "../_base_/datasets/ade20k_512.py",
    "../_base_/schedules/adamw_160k.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(num_classes=_base_.num_classes),
)
sync_bn = "torch"  # batch norm over all GPUs, where there are several
