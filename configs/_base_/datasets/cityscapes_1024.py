# Cityscapes, 19 classes, in square crops of 1024; short side 512...2048, tests at full size.
_base_ = "cityscapes_512x1024.py"

crop_size = (1024, 1024)
train_pipeline = [
    _base_.load_image,
    _base_.load_labels,
    dict(_base_.random_scale, scales=[int(1024 * 0.1 * step) for step in range(5, 21)], max_size=4096),
    dict(_base_.random_crop, crop_size=crop_size),
    *_base_.vary_and_pack,
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
data_preprocessor = dict(size=crop_size)
