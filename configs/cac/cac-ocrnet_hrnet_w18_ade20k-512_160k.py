# OCRNet with the context-aware classifier in its second head on ADE20K, HRNet-W18: the published recipe.
_base_ = [
    "../_base_/models/ocrnet.py",
    "../_base_/backbones/hrnet_w18.py",
    "../_base_/datasets/ade20k_ratio_512.py",
    "../_base_/schedules/sgd_160k.py",
    "../_base_/runtime_per_pixel.py",
]
host = dict(_base_.second_head, num_classes=_base_.num_classes)
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=[
        dict(_base_.first_head, num_classes=_base_.num_classes),
        dict(type="mmseg_m2f.ContextAwareHead", host=host),
    ],
)
