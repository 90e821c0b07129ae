# COCO 2017 instances, 80 classes; the published recipe: large-scale jitter to 1024 x 1024.
_base_ = "common_instance.py"

num_classes = 80
data_root = "data/coco"
crop_size = (1024, 1024)
train_pipeline = [
    _base_.load_image,
    _base_.load_objects,
    dict(type="mmdet.RandomFlip", prob=0.5),
    dict(
        type="mmengine.RandomResize",
        scale=crop_size,
        ratio_range=(0.1, 2.0),
        resize_type="mmdet.Resize",
        keep_ratio=True,
    ),
    dict(_base_.random_crop, crop_size=crop_size),
    *_base_.finish,
]
test_pipeline = [
    _base_.load_image,
    dict(type="mmdet.Resize", scale=(1333, 800), keep_ratio=True),
    _base_.load_objects,
    _base_.pack_for_test,
]
train_dataloader = dict(
    dataset=dict(
        type="mmseg_m2f.CocoInstance",
        data_root=data_root,
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img_path="train2017"),
        drop_empty=True,
        min_size=32,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="mmseg_m2f.CocoInstance",
        data_root=data_root,
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img_path="val2017"),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
data_preprocessor = dict(
    batch_augments=[
        dict(type="mmdet.BatchFixedSizePad", size=crop_size, img_pad_value=0, pad_mask=False, pad_seg=False)
    ]
)
