# Mask2Former, Cityscapes objects, Swin-L: published recipe, 200 queries.
_base_ = [
    "../_base_/models/mask2former_instance.py",
    "../_base_/backbones/swin_l.py",
    "../_base_/datasets/cityscapes_instance_512x1024.py",
    "../_base_/schedules/adamw_90k.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="AP"))
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    thing_classes=_base_.thing_classes,
    decode_head=dict(num_classes=_base_.num_classes, query_decoder=dict(num_queries=200)),
)
