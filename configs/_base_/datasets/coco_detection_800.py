# COCO 2017 boxes, 80 classes; DETR's recipe: short side 480...800, half of the images cropped in between.
_base_ = "./common_objects.py"
from mmseg_m2f.config.recipes import crop_objects, flip_objects, loaders, object_pipelines, resize

num_classes = 80
data_root = "data/coco"
choose = dict(type="mmengine.RandomChoiceResize", resize_type="mmdet.Resize", keep_ratio=True)
to_training_size = dict(choose, scales=[(side, 1333) for side in range(480, 801, 32)])
crop_first = [
    dict(choose, scales=[(side, 4200) for side in (400, 500, 600)]),
    crop_objects((384, 600), crop_type="absolute_range"),
]
train_pipeline, test_pipeline = object_pipelines(
    [
        flip_objects(),
        dict(type="mmengine.RandomChoice", transforms=[[to_training_size], [*crop_first, to_training_size]]),
    ],
    test_resize=[resize((1333, 800), by="mmdet.Resize")],
    boxes_only=True,
)
train_dataloader, val_dataloader, test_dataloader = loaders(
    train_pipeline,
    test_pipeline,
    both=dict(type="mmseg_m2f.CocoInstance", data_root=data_root),
    train=dict(ann_file="annotations/instances_train2017.json", data_prefix=dict(img_path="train2017")),
    val=dict(ann_file="annotations/instances_val2017.json", data_prefix=dict(img_path="val2017")),
)
val_evaluator = dict(
    type="mmdet.CocoMetric", ann_file=f"{data_root}/annotations/instances_val2017.json", metric=["bbox"]
)
test_evaluator = val_evaluator
data_preprocessor = dict(pad_size_divisor=1)
