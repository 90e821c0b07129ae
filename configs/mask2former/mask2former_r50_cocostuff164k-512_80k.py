# Mask2Former, COCO-Stuff 164k, R50: the published optimizer; no published result.
_base_ = [
    "../_base_/models/mask2former.py",
    "../_base_/backbones/r50.py",
    "../_base_/datasets/cocostuff164k_512.py",
    "../_base_/schedules/adamw_80k.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(num_classes=_base_.num_classes),
)
