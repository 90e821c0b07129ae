# Published recipe of 512 x 512 crops: short side 256...1024, SSD colours, flips; tests at short side 512.
_base_ = "common.py"

crop_size = (512, 512)
train_pipeline = [
    _base_.load_image,
    _base_.load_labels,
    dict(_base_.random_scale, scales=[int(512 * 0.1 * step) for step in range(5, 21)], max_size=2048),
    dict(_base_.random_crop, crop_size=crop_size),
    *_base_.vary_and_pack,
]
test_pipeline = [
    _base_.load_image,
    dict(type="mmengine.Resize", scale=(2048, 512), keep_ratio=True),
    _base_.load_labels,  # after resizing: labels keep their original size
    *_base_.pack,
]
tta_pipeline = [
    _base_.load_image,
    dict(
        type="mmengine.TestTimeAug",
        transforms=[
            [
                dict(type="mmengine.Resize", scale=(int(2048 * ratio), int(512 * ratio)), keep_ratio=True)
                for ratio in _base_.tta_ratios
            ],
            _base_.flip_views,
            [_base_.load_labels],
            _base_.pack,
        ],
    ),
]
data_preprocessor = dict(size=crop_size)
