# A small SegViT that drops most tokens halfway and keeps those at edges, on generated shapes from random weights.
_base_ = [
    "../_base_/models/segvit_tiny_shrunk.py",
    "../_base_/backbones/vit_tiny_shrunk_from_scratch.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/adamw_scratch_4000.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=dict(_base_.data_preprocessor, **_base_.normalization),
    backbone=dict(_base_.backbone, img_size=_base_.crop_size),
    decode_head=dict(num_classes=_base_.num_classes, query_decoder=dict(crop_size=_base_.crop_size)),
)
