# ADE20K panoptic, 100 things and 50 stuff classes: `ade20k_panoptic_{train,val}` in the folder ADEChallengeData2016.
# The order is things first; `mmseg_m2f.checkpoints` reorders the authors' weights, whose order is the semantic one.
_base_ = "./common_objects.py"
from mmseg_m2f.config.recipes import crops_of_segments, loaders, panoptic_metrics, resize, segment_pipelines

num_classes = 150
thing_classes = list(range(100))
data_root = "data/ade/ADEChallengeData2016"
crop_size = (640, 640)
train_pipeline, test_pipeline = segment_pipelines(
    crops_of_segments(crop_size, short_side=640, pad=True), test_resize=[resize((2560, 640))]
)
train_dataloader, val_dataloader, test_dataloader = loaders(
    train_pipeline,
    test_pipeline,
    both=dict(type="mmseg_m2f.CocoPanoptic", data_root=data_root),
    train=dict(
        ann_file="ade20k_panoptic_train.json",
        data_prefix=dict(img_path="images/training", seg_map_path="ade20k_panoptic_train"),
    ),
    val=dict(
        ann_file="ade20k_panoptic_val.json",
        data_prefix=dict(img_path="images/validation", seg_map_path="ade20k_panoptic_val"),
    ),
)
val_evaluator = panoptic_metrics(thing_classes)
test_evaluator = val_evaluator
