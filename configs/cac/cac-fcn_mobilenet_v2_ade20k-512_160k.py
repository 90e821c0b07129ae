# FCN with the context-aware classifier on ADE20K, MobileNetV2: the published recipe.
_base_ = [
    "../_base_/models/fcn.py",
    "../_base_/backbones/mobilenet_v2_d8.py",
    "../_base_/datasets/ade20k_ratio_512.py",
    "../_base_/schedules/sgd_160k.py",
    "../_base_/runtime_per_pixel.py",
]
host = dict(_base_.model.decode_head, in_channels=320, num_classes=_base_.num_classes)
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(_delete_=True, type="mmseg_m2f.ContextAwareHead", host=host),
    auxiliary_head=dict(in_channels=96, num_classes=_base_.num_classes),
)
