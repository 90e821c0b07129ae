# UPerNet with the context-aware classifier on generated shapes from random weights.
_base_ = [
    "../_base_/models/upernet_tiny.py",
    "../_base_/models/context_aware.py",
    "../_base_/backbones/r18_from_scratch.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/adamw_scratch_800.py",
    "../_base_/runtime_per_pixel.py",
]
host = dict(_base_.model.decode_head, in_channels=[64, 128, 256, 512], num_classes=_base_.num_classes)
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(_base_.context_aware, _delete_=True, host=host),
    auxiliary_head=dict(in_channels=256, num_classes=_base_.num_classes),
)
