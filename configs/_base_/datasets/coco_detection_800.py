# COCO 2017 boxes, 80 classes; DETR's recipe: short side 480...800, half of the images cropped in between.
_base_ = "common_instance.py"

num_classes = 80
data_root = "data/coco"
load_boxes = dict(type="mmdet.LoadAnnotations", with_bbox=True)
resize = dict(type="mmengine.RandomChoiceResize", resize_type="mmdet.Resize", keep_ratio=True)
to_training_size = dict(resize, scales=[(side, 1333) for side in range(480, 801, 32)])
crop = dict(_base_.random_crop, crop_type="absolute_range", crop_size=(384, 600))
train_pipeline = [
    _base_.load_image,
    load_boxes,
    dict(type="mmdet.RandomFlip", prob=0.5),
    dict(
        type="mmengine.RandomChoice",
        transforms=[
            [to_training_size],
            [dict(resize, scales=[(side, 4200) for side in (400, 500, 600)]), crop, to_training_size],
        ],
    ),
    dict(type="mmdet.FilterAnnotations", min_gt_bbox_wh=(1e-5, 1e-5), keep_empty=False),
    dict(type="mmdet.PackDetInputs"),
]
test_pipeline = [
    _base_.load_image,
    dict(type="mmdet.Resize", scale=(1333, 800), keep_ratio=True),
    load_boxes,
    _base_.pack_for_test,
]
images = dict(type="mmseg_m2f.CocoInstance", data_root=data_root)
train_dataloader = dict(
    dataset=dict(
        images,
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img_path="train2017"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        images,
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img_path="val2017"),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type="mmdet.CocoMetric",
    ann_file=f"{data_root}/annotations/instances_val2017.json",
    metric=["bbox"],
)
test_evaluator = val_evaluator
data_preprocessor = dict(pad_size_divisor=1)
