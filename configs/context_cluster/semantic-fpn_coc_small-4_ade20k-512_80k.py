# Semantic FPN, ADE20K, Context Cluster small with 4 centres per region: the authors' recipe.
_base_ = [
    "../_base_/models/semantic_fpn.py",
    "../_base_/backbones/coc_small.py",
    "../_base_/datasets/ade20k_ratio_512_multiple32.py",
    "../_base_/schedules/adamw_semantic_fpn_80k.py",
    "../_base_/runtime_per_pixel.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    neck=dict(in_channels=_base_.backbone_channels),
    decode_head=dict(num_classes=_base_.num_classes),
)
