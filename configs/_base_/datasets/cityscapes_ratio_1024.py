# Cityscapes: short side 512...2048 from a continuous range, 1024 x 1024 crops; tested at full size.
_base_ = "cityscapes_512x1024.py"

crop_size = (1024, 1024)
train_pipeline = [
    _base_.load_image,
    _base_.load_labels,
    dict(type="mmengine.RandomResize", scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(_base_.random_crop, crop_size=crop_size),
    *_base_.vary_and_pack,
]
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
data_preprocessor = dict(size=crop_size)
