# Cityscapes, 19 classes: leftImg8bit and gtFine with the `_labelTrainIds` files of cityscapesscripts.
_base_ = "common.py"

num_classes = 19
data_root = "data/cityscapes"
crop_size = (512, 1024)
train_pipeline = [
    _base_.load_image,
    _base_.load_labels,
    dict(_base_.random_scale, scales=[int(1024 * 0.1 * step) for step in range(5, 21)], max_size=4096),
    dict(_base_.random_crop, crop_size=crop_size),
    *_base_.vary_and_pack,
]
test_pipeline = [
    _base_.load_image,
    dict(type="mmengine.Resize", scale=(2048, 1024), keep_ratio=True),
    _base_.load_labels,  # after resizing: labels keep their original size
    *_base_.pack,
]
tta_pipeline = [
    _base_.load_image,
    dict(
        type="mmengine.TestTimeAug",
        transforms=[
            [
                dict(type="mmengine.Resize", scale=(int(2048 * ratio), int(1024 * ratio)), keep_ratio=True)
                for ratio in _base_.tta_ratios
            ],
            _base_.flip_views,
            [_base_.load_labels],
            _base_.pack,
        ],
    ),
]
train_dataloader = dict(
    dataset=dict(
        type="mmseg.CityscapesDataset",
        data_root=data_root,
        data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="mmseg.CityscapesDataset",
        data_root=data_root,
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
data_preprocessor = dict(size=crop_size)
