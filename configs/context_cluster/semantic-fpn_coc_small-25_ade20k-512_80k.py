# Semantic FPN, ADE20K, Context Cluster small with 25 centres per region: the authors' recipe.
_base_ = [
    "../_base_/models/semantic_fpn.py",
    "../_base_/backbones/coc_small.py",
    "../_base_/datasets/ade20k_ratio_512_multiple32.py",
    "../_base_/schedules/adamw_semantic_fpn_80k.py",
    "../_base_/runtime_per_pixel.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(_base_.backbone, center_grid=5),
    neck=dict(in_channels=_base_.backbone_channels),
    decode_head=dict(num_classes=_base_.num_classes),
)
