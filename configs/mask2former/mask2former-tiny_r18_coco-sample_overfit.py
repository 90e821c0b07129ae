# Learns the two panoptic samples of COCO by heart from random weights; an hour or more on a CPU core.
_base_ = [
    "../_base_/models/mask2former_tiny_panoptic.py",
    "../_base_/backbones/r18_stride2_from_scratch.py",
    "../_base_/datasets/coco_sample_panoptic.py",
    "../_base_/schedules/adamw_scratch_1500.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="AP"))
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    thing_classes=_base_.thing_classes,
    decode_head=dict(
        num_classes=_base_.num_classes,
        query_decoder=dict(num_queries=60),
        criterion=dict(sampling=dict(num_points=24576)),
    ),
)
