# CamVid at half its size in small crops: many iterations on a CPU. Judged at full size.
_base_ = "./camvid_240x320.py"

crop_size = (96, 128)
train_pipeline = [
    _base_.load_image,
    _base_.load_labels,
    dict(_base_.random_scale, scales=[int(180 * 0.1 * step) for step in range(6, 15)], max_size=720),
    dict(_base_.random_crop, crop_size=crop_size),
    *_base_.vary_and_pack,
]
test_pipeline = [
    _base_.load_image,
    dict(type="mmengine.Resize", scale=(240, 180), keep_ratio=True),
    _base_.load_labels,
    *_base_.pack,
]
tta_pipeline = [
    _base_.load_image,
    dict(
        type="mmengine.TestTimeAug",
        transforms=[
            [
                dict(type="mmengine.Resize", scale=(int(240 * ratio), int(180 * ratio)), keep_ratio=True)
                for ratio in _base_.tta_ratios
            ],
            _base_.flip_views,
            [_base_.load_labels],
            _base_.pack,
        ],
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
data_preprocessor = dict(size=crop_size)
