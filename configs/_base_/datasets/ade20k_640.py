# ADE20K with the recipe of the larger backbones: 640 x 640 crops, short side 320...1280, tests at 640.
_base_ = "ade20k_512.py"

crop_size = (640, 640)
train_pipeline = [
    _base_.load_image,
    _base_.load_labels,
    dict(_base_.random_scale, scales=[int(640 * 0.1 * step) for step in range(5, 21)], max_size=2560),
    dict(_base_.random_crop, crop_size=crop_size),
    *_base_.vary_and_pack,
]
test_pipeline = [
    _base_.load_image,
    dict(type="mmengine.Resize", scale=(2560, 640), keep_ratio=True),
    _base_.load_labels,  # after resizing: labels keep their original size
    *_base_.pack,
]
tta_pipeline = [
    _base_.load_image,
    dict(
        type="mmengine.TestTimeAug",
        transforms=[
            [
                dict(type="mmengine.Resize", scale=(int(2560 * ratio), int(640 * ratio)), keep_ratio=True)
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
