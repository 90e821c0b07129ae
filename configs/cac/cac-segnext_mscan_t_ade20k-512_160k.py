# SegNeXt-T with the context-aware classifier on ADE20K, trained like SegNeXt.
_base_ = [
    "../_base_/models/segnext.py",
    "../_base_/backbones/mscan_t.py",
    "../_base_/datasets/ade20k_ratio_512_multiple32.py",
    "../_base_/schedules/adamw_segnext_160k.py",
    "../_base_/runtime_per_pixel.py",
]
host = dict(_base_.model.decode_head, in_channels=_base_.backbone.embed_dims[1:], num_classes=_base_.num_classes)
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(_delete_=True, type="mmseg_m2f.ContextAwareHead", host=host),
)
