# Two images of COCO's validation set, published with the panoptic API (github.com/cocodataset/panopticapi, the folder
# sample_data): trained and tested on the same two, unchanged, to see that a model can learn them by heart.
_base_ = "./common_objects.py"
from mmseg_m2f.config.recipes import loaders, pad_segments, panoptic_metrics, segment_pipelines

num_classes = 133
thing_classes = list(range(80))
data_root = "data/coco_panoptic_sample"
crop_size = (640, 448)  # width and height: both images fit
train_pipeline, test_pipeline = segment_pipelines([pad_segments(crop_size)], test_resize=[])
train_dataloader, val_dataloader, test_dataloader = loaders(
    train_pipeline,
    test_pipeline,
    both=dict(
        type="mmseg_m2f.CocoPanoptic",
        data_root=data_root,
        ann_file="panoptic_examples.json",
        data_prefix=dict(img_path="input_images", seg_map_path="panoptic_examples"),
    ),
)
for loader in (train_dataloader, val_dataloader, test_dataloader):
    loader.update(batch_size=2, num_workers=1)
del loader
val_evaluator = panoptic_metrics(thing_classes)
test_evaluator = val_evaluator
