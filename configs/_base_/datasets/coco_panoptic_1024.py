# COCO 2017 panoptic, 80 things and 53 stuff classes; the published recipe: large-scale jitter to 1024 x 1024.
_base_ = "./common_objects.py"
from mmseg_m2f.config.recipes import jitter_segments, loaders, panoptic_metrics, resize, segment_pipelines

num_classes = 133
thing_classes = list(range(80))
data_root = "data/coco"
crop_size = (1024, 1024)
train_pipeline, test_pipeline = segment_pipelines(jitter_segments(crop_size), test_resize=[resize((1333, 800))])
train_dataloader, val_dataloader, test_dataloader = loaders(
    train_pipeline,
    test_pipeline,
    both=dict(type="mmseg_m2f.CocoPanoptic", data_root=data_root),
    train=dict(
        ann_file="annotations/panoptic_train2017.json",
        data_prefix=dict(img_path="train2017", seg_map_path="annotations/panoptic_train2017"),
    ),
    val=dict(
        ann_file="annotations/panoptic_val2017.json",
        data_prefix=dict(img_path="val2017", seg_map_path="annotations/panoptic_val2017"),
    ),
)
val_evaluator = panoptic_metrics(thing_classes)
test_evaluator = val_evaluator
