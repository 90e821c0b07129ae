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
    transforms=[dict(type="mmseg.LoadAnnotations"), dict(type="mmseg_m2f.IgnoreLabels", labels=[11])],
)
train_pipeline = [
    _base_.load_image,
    load_labels,
    dict(
        type="mmengine.RandomChoiceResize",
        scales=[int(360 * 0.1 * step) for step in range(5, 21)],
        resize_type="mmseg.ResizeShortestEdge",
        max_size=1440,
    ),
    dict(type="mmseg.RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="mmengine.RandomFlip", prob=0.5),
    dict(type="mmseg.PhotoMetricDistortion"),
    dict(type="mmseg.PackSegInputs"),
]
test_pipeline = [
    _base_.load_image,
    load_labels,
    dict(type="mmseg.PackSegInputs"),
]
tta_pipeline = [
    _base_.load_image,
    dict(
        type="mmengine.TestTimeAug",
        transforms=[
            [
                dict(type="mmengine.Resize", scale=(int(480 * ratio), int(360 * ratio)), keep_ratio=True)
                for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            _base_.flip_views,
            [load_labels],
            [dict(type="mmseg.PackSegInputs")],
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
