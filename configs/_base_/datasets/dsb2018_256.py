# Nuclei of the 2018 Data Science Bowl in COCO format: images/{train,val}/*.png, annotations/{train,val}.json.
_base_ = "./common_objects.py"
from mmseg_m2f.config.recipes import crop_objects, flip_objects, loaders, object_pipelines

num_classes = 1
data_root = "data/dsb2018"
crop_size = (256, 256)
dataset_metainfo = dict(classes=("nucleus",), palette=[(220, 120, 40)])
train_pipeline, test_pipeline = object_pipelines(
    [flip_objects(prob=0.75, direction=["horizontal", "vertical", "diagonal"]), crop_objects(crop_size)],
    test_resize=[],
)
train_dataloader, val_dataloader, test_dataloader = loaders(
    train_pipeline,
    test_pipeline,
    both=dict(type="mmseg_m2f.CocoInstance", data_root=data_root, metainfo=dataset_metainfo),
    train=dict(ann_file="annotations/train.json", data_prefix=dict(img_path="images/train")),
    val=dict(ann_file="annotations/val.json", data_prefix=dict(img_path="images/val")),
)
train_dataloader.update(batch_size=4, num_workers=1)
val_dataloader.update(num_workers=1)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type="mmseg_m2f.MaskAP", max_per_image=1000),  # up to 375 nuclei in an image
    dict(type="mmseg_m2f.ObjectMatching"),
]
test_evaluator = val_evaluator
data_preprocessor = dict(batch_augments=[])
