# SegNeXt-B, COCO-Stuff 164k: the authors' recipe.
_base_ = [
    "../_base_/models/segnext_b.py",
    "../_base_/backbones/mscan_b.py",
    "../_base_/datasets/cocostuff164k_ratio_512_multiple32.py",
    "../_base_/schedules/adamw_segnext_80k.py",
    "../_base_/runtime_per_pixel.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(in_channels=_base_.backbone.embed_dims[1:], num_classes=_base_.num_classes),
)
