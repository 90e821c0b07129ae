# ADE20K with sizes drawn from a continuous range: short side 256...1024, 512 x 512 crops.
_base_ = "ade20k_512.py"

train_pipeline = [
    _base_.load_image,
    _base_.load_labels,
    dict(type="mmengine.RandomResize", scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(_base_.random_crop, crop_size=_base_.crop_size),
    *_base_.vary_and_pack,
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
