# PASCAL-Context, 59 classes (label 0, background, is void): VOC2010 with the label maps of mmseg's converter.
_base_ = "common.py"

num_classes = 59
data_root = "data/VOCdevkit/VOC2010"
crop_size = (480, 480)
train_pipeline = [
    _base_.load_image,
    _base_.load_labels,
    dict(type="mmengine.RandomResize", scale=(520, 520), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(_base_.random_crop, crop_size=crop_size),
    *_base_.vary_and_pack,
]
test_pipeline = [
    _base_.load_image,
    dict(type="mmengine.Resize", scale=(520, 520), keep_ratio=True),
    _base_.load_labels,  # after resizing: labels keep their original size
    *_base_.pack,
]
tta_pipeline = [
    _base_.load_image,
    dict(
        type="mmengine.TestTimeAug",
        transforms=[
            [
                dict(type="mmengine.Resize", scale=(int(520 * ratio), int(520 * ratio)), keep_ratio=True)
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
        type="mmseg.PascalContextDataset59",
        data_root=data_root,
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassContext"),
        ann_file="ImageSets/SegmentationContext/train.txt",
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="mmseg.PascalContextDataset59",
        data_root=data_root,
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassContext"),
        ann_file="ImageSets/SegmentationContext/val.txt",
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
data_preprocessor = dict(size=crop_size)
