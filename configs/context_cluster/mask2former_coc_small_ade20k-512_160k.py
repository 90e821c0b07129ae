# Mask2Former, ADE20K semantic, Context Cluster small: Mask2Former's recipe with another backbone.
_base_ = [
    "../_base_/models/mask2former.py",
    "../_base_/backbones/coc_small.py",
    "../_base_/datasets/ade20k_512.py",
    "../_base_/schedules/adamw_160k.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(num_classes=_base_.num_classes),
)
