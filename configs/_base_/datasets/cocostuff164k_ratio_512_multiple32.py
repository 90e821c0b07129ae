# COCO-Stuff 164k: short side 256...1024 from a continuous range; tested at sides resized to multiples of 32.
_base_ = "cocostuff164k_512.py"

train_pipeline = [
    _base_.load_image,
    _base_.load_labels,
    dict(type="mmengine.RandomResize", scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(_base_.random_crop, crop_size=_base_.crop_size),
    *_base_.vary_and_pack,
]
test_pipeline = [
    _base_.load_image,
    dict(type="mmengine.Resize", scale=(2048, 512), keep_ratio=True),
    dict(type="mmseg.ResizeToMultiple", size_divisor=32),
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
            [dict(type="mmseg.ResizeToMultiple", size_divisor=32)],
            _base_.flip_views,
            [_base_.load_labels],
            _base_.pack,
        ],
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
