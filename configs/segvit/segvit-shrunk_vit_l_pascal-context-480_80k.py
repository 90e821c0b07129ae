# SegViT, PASCAL-Context (59 classes), ViT-L that shrinks to a quarter of its tokens: published recipe.
_base_ = [
    "../_base_/models/segvit_shrunk.py",
    "../_base_/backbones/vit_l_shrunk.py",
    "../_base_/datasets/pascal_context_short_480.py",
    "../_base_/schedules/adamw_segvit_80k.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=dict(_base_.data_preprocessor, **_base_.normalization),
    backbone=dict(_base_.backbone, img_size=_base_.crop_size),
    decode_head=dict(num_classes=_base_.num_classes, query_decoder=dict(crop_size=_base_.crop_size)),
    test_cfg=dict(mode="slide", crop_size=_base_.crop_size, stride=(320, 320)),
)
