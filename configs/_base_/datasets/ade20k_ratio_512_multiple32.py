# ADE20K as in ade20k_ratio_512, tested at sides that are resized, not padded, to multiples of 32.
_base_ = "ade20k_ratio_512.py"

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
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
