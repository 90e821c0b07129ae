# Small Mask2Former, nuclei of DSB2018 in an hour or two of a CPU core, EfficientNet-Lite0 with weights of a package.
_base_ = [
    "../_base_/models/mask2former_tiny_instance.py",
    "../_base_/backbones/efficientnet_lite0.py",
    "../_base_/datasets/dsb2018_224.py",
    "../_base_/schedules/adamw_finetune_2000.py",
    "../_base_/runtime.py",
]
lr, max_iters, val_interval = 4e-4, 4500, 2250
default_hooks = dict(checkpoint=dict(interval=750, save_best="AP"))
model = dict(
    data_preprocessor=dict(_base_.data_preprocessor, **_base_.normalization),
    backbone=_base_.backbone,
    thing_classes=list(range(_base_.num_classes)),
    decode_head=dict(num_classes=_base_.num_classes, query_decoder=dict(num_queries=100)),
    test_cfg=dict(
        **dict(mode="slide", crop_size=_base_.crop_size, stride=(112, 112), scale=2.5),
        **dict(max_per_image=200, score_threshold=0.05, mask_nms_threshold=0.3),
    ),
)
