# Objects of generated shapes from random weights, with boxes and masks.
_base_ = [
    "../_base_/models/mask_dino_tiny_instance.py",
    "../_base_/backbones/r18_stride2_from_scratch.py",
    "../_base_/datasets/shapes_instance.py",
    "../_base_/schedules/adamw_scratch_1500.py",
    "../_base_/runtime.py",
]
lr, max_iters, val_interval = 1e-3, 1000, 250
default_hooks = dict(checkpoint=dict(save_best="AP"))
val_evaluator = [dict(type="mmseg_m2f.MaskAP"), dict(type="mmseg_m2f.MaskAP", boxes=True)]
test_evaluator = val_evaluator
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    thing_classes=_base_.thing_classes,
    # Images of 96 pixels: levels of stride 4 to 32.
    decode_head=dict(num_classes=_base_.num_classes, pixel_decoder=dict(num_levels=4, num_extra_levels=0)),
    test_cfg=dict(mask_nms_threshold=0.7),  # early in training, several queries find the same object
)
