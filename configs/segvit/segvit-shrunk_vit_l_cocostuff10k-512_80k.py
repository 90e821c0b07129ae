# SegViT, COCO-Stuff 10k, ViT-L that shrinks to a quarter of its tokens: published recipe.
_base_ = [
    "../_base_/models/segvit_shrunk.py",
    "../_base_/backbones/vit_l_shrunk.py",
    "../_base_/datasets/cocostuff10k_ratio_512.py",
    "../_base_/schedules/adamw_segvit_cocostuff_80k.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=dict(_base_.data_preprocessor, **_base_.normalization),
    backbone=dict(_base_.backbone, img_size=_base_.crop_size),
    decode_head=dict(num_classes=_base_.num_classes, query_decoder=dict(crop_size=_base_.crop_size)),
    test_cfg=dict(mode="slide", crop_size=_base_.crop_size, stride=(341, 341)),
)
