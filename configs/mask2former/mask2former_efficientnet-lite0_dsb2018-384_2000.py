# Mask2Former of the published size with fewer points, nuclei of DSB2018, EfficientNet-Lite0, weights of a package.
_base_ = [
    "../_base_/models/mask2former_instance.py",
    "../_base_/backbones/efficientnet_lite0.py",
    "../_base_/datasets/dsb2018_384.py",
    "../_base_/schedules/adamw_finetune_2000.py",
    "../_base_/runtime.py",
]
lr = 3e-4
default_hooks = dict(checkpoint=dict(save_best="AP"))
model = dict(
    data_preprocessor=dict(_base_.data_preprocessor, **_base_.normalization),
    backbone=_base_.backbone,
    thing_classes=list(range(_base_.num_classes)),
    decode_head=dict(num_classes=_base_.num_classes, criterion=dict(sampling=dict(num_points=4096))),
    test_cfg=dict(
        **dict(mode="slide", crop_size=_base_.crop_size, stride=(256, 256), scale=3.0),
        **dict(max_per_image=200, score_threshold=0.05, mask_nms_threshold=0.3),
    ),
)
