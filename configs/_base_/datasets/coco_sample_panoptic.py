# Two images of COCO's validation set, published with the panoptic API (github.com/cocodataset/panopticapi, the folder
# sample_data): trained and tested on the same two, unchanged, to see that a model can learn them by heart.
_base_ = "common_segments.py"

num_classes = 133
thing_classes = list(range(80))
data_root = "data/coco_panoptic_sample"
crop_size = (640, 448)  # width and height: both images fit
train_pipeline = [
    _base_.load_image,
    _base_.load_panoptic,
    dict(_base_.pad, size=crop_size),
    *_base_.finish,
]
test_pipeline = [_base_.load_image, _base_.load_panoptic, dict(type="mmseg_m2f.SegmentsToObjects"), _base_.pack]
sample = dict(
    type="mmseg_m2f.CocoPanoptic",
    data_root=data_root,
    ann_file="panoptic_examples.json",
    data_prefix=dict(img_path="input_images", seg_map_path="panoptic_examples"),
)
train_dataloader = dict(batch_size=2, num_workers=1, dataset=dict(sample, pipeline=train_pipeline))
val_dataloader = dict(batch_size=2, num_workers=1, dataset=dict(sample, pipeline=test_pipeline, test_mode=True))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type="mmseg_m2f.PanopticQuality", thing_classes=thing_classes),
    dict(type="mmseg_m2f.MaskAP"),
    dict(type="mmseg_m2f.SemanticIoU"),
]
test_evaluator = val_evaluator
