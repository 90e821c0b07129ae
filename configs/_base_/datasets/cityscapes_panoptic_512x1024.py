# Cityscapes panoptic, 11 stuff classes and 8 things: leftImg8bit and gtFine as published, nothing to convert.
_base_ = "./common_objects.py"
from mmseg_m2f.config.recipes import crops_of_segments, loaders, panoptic_metrics, resize, segment_pipelines

num_classes = 19
thing_classes = list(range(11, 19))
data_root = "data/cityscapes"
crop_size = (512, 1024)
train_pipeline, test_pipeline = segment_pipelines(
    crops_of_segments(crop_size, short_side=1024),
    test_resize=[resize((2048, 1024))],
    load="mmseg_m2f.LoadCityscapesSegments",
)
train_dataloader, val_dataloader, test_dataloader = loaders(
    train_pipeline,
    test_pipeline,
    both=dict(type="mmseg.CityscapesDataset", data_root=data_root, seg_map_suffix="_gtFine_instanceIds.png"),
    train=dict(data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")),
    val=dict(data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val")),
)
val_evaluator = panoptic_metrics(thing_classes)
test_evaluator = val_evaluator
