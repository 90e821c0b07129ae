# Mapillary Vistas v1.2 panoptic, 37 things and 28 stuff classes in the order of the semantic classes: training/ and
# validation/ with images and v1.2/panoptic.
_base_ = "./common_objects.py"
from mmseg_m2f.config.recipes import crops_of_segments, loaders, panoptic_metrics, resize, segment_pipelines

num_classes = 65
thing_classes = [0, 1, 8, *range(19, 24), *range(32, 43), *range(44, 58), *range(59, 63)]
data_root = "data/mapillary"
crop_size = (1024, 1024)
train_pipeline, test_pipeline = segment_pipelines(
    crops_of_segments(crop_size, short_side=2048, pad=True), test_resize=[resize((2048, 2048))]
)
train_dataloader, val_dataloader, test_dataloader = loaders(
    train_pipeline,
    test_pipeline,
    both=dict(type="mmseg_m2f.CocoPanoptic", data_root=data_root, things_first=False),
    train=dict(
        ann_file="training/v1.2/panoptic/panoptic_2018.json",
        data_prefix=dict(img_path="training/images", seg_map_path="training/v1.2/panoptic"),
    ),
    val=dict(
        ann_file="validation/v1.2/panoptic/panoptic_2018.json",
        data_prefix=dict(img_path="validation/images", seg_map_path="validation/v1.2/panoptic"),
    ),
)
val_evaluator = panoptic_metrics(thing_classes)
test_evaluator = val_evaluator
