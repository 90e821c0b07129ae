# CamVid, 11 classes, 480 x 360 pixels: images/{train,val}/*.jpg, annotations/{train,val}/*.png, void is 11.
_base_ = "common.py"

num_classes = 11
data_root = "data/camvid"
crop_size = (360, 480)
dataset_metainfo = dict(
    classes=(
        *("Sky", "Building", "Pole", "Road", "Pavement", "Tree"),
        *("SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
    ),
    palette=[
        *([128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0]),
        *([192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192]),
    ],
)
load_labels = dict(
    type="mmseg_m2f.CheckedLoading",
    transforms=[dict(type="mmseg_m2f.LoadLabelMap"), dict(type="mmseg_m2f.IgnoreLabels", labels=[11])],
)
train_pipeline = [
    _base_.load_image,
    load_labels,
    dict(_base_.random_scale, scales=[int(360 * 0.1 * step) for step in range(5, 21)], max_size=1440),
    dict(_base_.random_crop, crop_size=crop_size),
    *_base_.vary_and_pack,
]
test_pipeline = [
    _base_.load_image,
    load_labels,
    *_base_.pack,
]
tta_pipeline = [
    _base_.load_image,
    dict(
        type="mmengine.TestTimeAug",
        transforms=[
            [
                dict(type="mmengine.Resize", scale=(int(480 * ratio), int(360 * ratio)), keep_ratio=True)
                for ratio in _base_.tta_ratios
            ],
            _base_.flip_views,
            [load_labels],
            _base_.pack,
        ],
    ),
]
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        type="mmseg.BaseSegDataset",
        data_root=data_root,
        data_prefix=dict(img_path="images/train", seg_map_path="annotations/train"),
        metainfo=dataset_metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="mmseg.BaseSegDataset",
        data_root=data_root,
        data_prefix=dict(img_path="images/val", seg_map_path="annotations/val"),
        metainfo=dataset_metainfo,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
data_preprocessor = dict(size=crop_size)
