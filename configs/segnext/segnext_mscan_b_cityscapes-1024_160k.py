# SegNeXt-B, Cityscapes: the authors' recipe, batch 8.
_base_ = [
    "../_base_/models/segnext_b.py",
    "../_base_/backbones/mscan_b.py",
    "../_base_/datasets/cityscapes_ratio_1024.py",
    "../_base_/schedules/adamw_segnext_160k.py",
    "../_base_/runtime_per_pixel.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(in_channels=_base_.backbone.embed_dims[1:], num_classes=_base_.num_classes),
    test_cfg=dict(mode="slide", crop_size=_base_.crop_size, stride=(768, 768)),
)
auto_scale_lr = dict(base_batch_size=8)
