# PASCAL-Context tested at short side 520, so that every image covers a window of 480 pixels.
_base_ = "pascal_context_480.py"

test_pipeline = [
    _base_.load_image,
    dict(type="mmseg.ResizeShortestEdge", scale=520, max_size=2080),
    _base_.load_labels,  # after resizing: labels keep their original size
    *_base_.pack,
]
tta_pipeline = [
    _base_.load_image,
    dict(
        type="mmengine.TestTimeAug",
        transforms=[
            [
                dict(type="mmseg.ResizeShortestEdge", scale=int(520 * ratio), max_size=int(2080 * ratio))
                for ratio in _base_.tta_ratios
            ],
            _base_.flip_views,
            [_base_.load_labels],
            _base_.pack,
        ],
    ),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
