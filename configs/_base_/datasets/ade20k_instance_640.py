# ADE20K objects, 100 classes: `ade20k_instance_{train,val}.json` in the folder ADEChallengeData2016.
_base_ = "./common_objects.py"
from mmseg_m2f.config.recipes import (
    crop_objects,
    flip_objects,
    loaders,
    object_pipelines,
    pad_batch,
    resize,
    vary_colours,
)

num_classes = 100
data_root = "data/ade/ADEChallengeData2016"
crop_size = (640, 640)
short_sides = dict(
    type="mmengine.RandomChoiceResize",
    resize_type="mmdet.Resize",
    scales=[(2560, int(640 * 0.1 * step)) for step in range(5, 21)],
    keep_ratio=True,
)
train_pipeline, test_pipeline = object_pipelines(
    [short_sides, crop_objects(crop_size), vary_colours(), flip_objects()],
    test_resize=[resize((2560, 640), by="mmdet.Resize")],
)
train_dataloader, val_dataloader, test_dataloader = loaders(
    train_pipeline,
    test_pipeline,
    both=dict(type="mmseg_m2f.CocoInstance", data_root=data_root),
    train=dict(ann_file="ade20k_instance_train.json", data_prefix=dict(img_path="images/training"), drop_empty=True),
    val=dict(ann_file="ade20k_instance_val.json", data_prefix=dict(img_path="images/validation")),
)
val_evaluator = dict(type="mmseg_m2f.MaskAP")
test_evaluator = val_evaluator
data_preprocessor = pad_batch(crop_size)
