# COCO 2017 instances, 80 classes; the published recipe: large-scale jitter to 1024 x 1024.
_base_ = "./common_objects.py"
from mmseg_m2f.config.recipes import jitter_objects, loaders, object_pipelines, pad_batch, resize

num_classes = 80
data_root = "data/coco"
crop_size = (1024, 1024)
train_pipeline, test_pipeline = object_pipelines(
    jitter_objects(crop_size), test_resize=[resize((1333, 800), by="mmdet.Resize")]
)
train_dataloader, val_dataloader, test_dataloader = loaders(
    train_pipeline,
    test_pipeline,
    both=dict(type="mmseg_m2f.CocoInstance", data_root=data_root),
    train=dict(
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img_path="train2017"),
        drop_empty=True,
        min_size=32,
    ),
    val=dict(ann_file="annotations/instances_val2017.json", data_prefix=dict(img_path="val2017")),
)
val_evaluator = dict(type="mmseg_m2f.MaskAP")
test_evaluator = val_evaluator
data_preprocessor = pad_batch(crop_size)
