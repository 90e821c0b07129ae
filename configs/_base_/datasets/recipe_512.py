# Published recipe of 512 x 512 crops: short side 256...1024, SSD colours, flips; tests at short side 512.
_base_ = "common.py"

crop_size = (512, 512)
train_pipeline = [
    _base_.load_image,
    _base_.load_labels,
    dict(
        type="mmengine.RandomChoiceResize",
        scales=[int(512 * 0.1 * step) for step in range(5, 21)],
        resize_type="mmseg.ResizeShortestEdge",
        max_size=2048,
    ),
    dict(type="mmseg.RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="mmengine.RandomFlip", prob=0.5),
    dict(type="mmseg.PhotoMetricDistortion"),
    dict(type="mmseg.PackSegInputs"),
]
test_pipeline = [
    _base_.load_image,
    dict(type="mmengine.Resize", scale=(2048, 512), keep_ratio=True),
    _base_.load_labels,  # after resizing: labels keep their original size
    dict(type="mmseg.PackSegInputs"),
]
tta_pipeline = [
    _base_.load_image,
    dict(
        type="mmengine.TestTimeAug",
        transforms=[
            [
                dict(type="mmengine.Resize", scale=(int(2048 * ratio), int(512 * ratio)), keep_ratio=True)
                for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            _base_.flip_views,
            [_base_.load_labels],
            [dict(type="mmseg.PackSegInputs")],
        ],
    ),
]
data_preprocessor = dict(size=crop_size)
