# Small Mask2Former for the nuclei of DSB2018 from random weights; more than an hour on a CPU core.
_base_ = [
    "../_base_/models/mask2former_tiny_instance.py",
    "../_base_/backbones/r18_from_scratch.py",
    "../_base_/datasets/dsb2018_256.py",
    "../_base_/schedules/adamw_scratch_4000.py",
    "../_base_/runtime.py",
]
default_hooks = dict(checkpoint=dict(save_best="AP"))
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    thing_classes=list(range(_base_.num_classes)),
    decode_head=dict(num_classes=_base_.num_classes),
)
