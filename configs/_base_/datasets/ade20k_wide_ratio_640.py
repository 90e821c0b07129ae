# ADE20K with sizes drawn from a continuous range: short side 320...1280, 640 x 640 crops, tests at 640.
_base_ = "ade20k_640.py"

train_pipeline = [
    _base_.load_image,
    _base_.load_labels,
    dict(type="mmengine.RandomResize", scale=(2560, 640), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(_base_.random_crop, crop_size=_base_.crop_size),
    *_base_.vary_and_pack,
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
