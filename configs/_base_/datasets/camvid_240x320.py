# CamVid in smaller crops, for training without a GPU; tested at its full size.
_base_ = "./camvid_360x480.py"

crop_size = (240, 320)
train_pipeline = [
    _base_.load_image,
    _base_.load_labels,
    dict(_base_.random_scale, scales=[int(360 * 0.1 * step) for step in range(6, 15)], max_size=1440),
    dict(_base_.random_crop, crop_size=crop_size),
    *_base_.vary_and_pack,
]
train_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1)
test_dataloader = dict(num_workers=1)
data_preprocessor = dict(size=crop_size)
