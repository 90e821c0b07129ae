# Nuclei of the 2018 Data Science Bowl in COCO format: images/{train,val}/*.png, annotations/{train,val}.json.
_base_ = "common_instance.py"

num_classes = 1
data_root = "data/dsb2018"
crop_size = (256, 256)
dataset_metainfo = dict(classes=("nucleus",), palette=[(220, 120, 40)])
train_pipeline = [
    _base_.load_image,
    _base_.load_objects,
    dict(type="mmdet.RandomFlip", prob=0.75, direction=["horizontal", "vertical", "diagonal"]),
    dict(_base_.random_crop, crop_size=crop_size),
    *_base_.finish,
]
test_pipeline = [_base_.load_image, _base_.load_objects, _base_.pack_for_test]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        type="mmseg_m2f.CocoInstance",
        data_root=data_root,
        ann_file="annotations/train.json",
        data_prefix=dict(img_path="images/train"),
        metainfo=dataset_metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        type="mmseg_m2f.CocoInstance",
        data_root=data_root,
        ann_file="annotations/val.json",
        data_prefix=dict(img_path="images/val"),
        metainfo=dataset_metainfo,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type="mmseg_m2f.MaskAP", max_per_image=1000),  # up to 375 nuclei in an image
    dict(type="mmseg_m2f.ObjectMatching"),
]
test_evaluator = val_evaluator
data_preprocessor = dict(batch_augments=[])
