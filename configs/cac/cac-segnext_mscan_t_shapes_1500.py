# SegNeXt-T with the context-aware classifier on generated shapes from random weights.
_base_ = [
    "../_base_/models/segnext.py",
    "../_base_/models/context_aware.py",
    "../_base_/backbones/mscan_t_from_scratch.py",
    "../_base_/datasets/shapes_160.py",
    "../_base_/schedules/adamw_scratch_1500.py",
    "../_base_/runtime_per_pixel.py",
]
host = dict(_base_.model.decode_head, in_channels=_base_.backbone.embed_dims[1:], num_classes=_base_.num_classes)
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(_base_.context_aware, _delete_=True, host=host),
)
