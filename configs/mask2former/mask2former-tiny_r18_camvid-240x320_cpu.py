# CamVid from random weights on a CPU in half an hour: small Mask2Former, half-size crops.
_base_ = [
    "../_base_/models/mask2former_tiny.py",
    "../_base_/backbones/r18_from_scratch.py",
    "../_base_/datasets/camvid_240x320.py",
    "../_base_/schedules/adamw_scratch_1500.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(num_classes=_base_.num_classes),
)
