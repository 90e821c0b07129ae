# COCO 2017 panoptic, 80 things and 53 stuff classes; the published recipe: large-scale jitter to 1024 x 1024.
_base_ = "common_segments.py"

num_classes = 133
thing_classes = list(range(80))
data_root = "data/coco"
crop_size = (1024, 1024)
train_pipeline = [
    _base_.load_image,
    _base_.load_panoptic,
    _base_.random_flip,
    dict(
        type="mmengine.RandomResize",
        scale=crop_size,
        ratio_range=(0.1, 2.0),
        resize_type="mmengine.Resize",
        keep_ratio=True,
    ),
    dict(_base_.random_crop, crop_size=crop_size),
    dict(_base_.pad, size=crop_size),
    *_base_.finish,
]
test_pipeline = [
    _base_.load_image,
    dict(type="mmengine.Resize", scale=(1333, 800), keep_ratio=True),
    _base_.load_panoptic,  # after resizing: the annotation keeps its original size
    dict(type="mmseg_m2f.SegmentsToObjects"),
    _base_.pack,
]
train_dataloader = dict(
    dataset=dict(
        type="mmseg_m2f.CocoPanoptic",
        data_root=data_root,
        ann_file="annotations/panoptic_train2017.json",
        data_prefix=dict(img_path="train2017", seg_map_path="annotations/panoptic_train2017"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="mmseg_m2f.CocoPanoptic",
        data_root=data_root,
        ann_file="annotations/panoptic_val2017.json",
        data_prefix=dict(img_path="val2017", seg_map_path="annotations/panoptic_val2017"),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type="mmseg_m2f.PanopticQuality", thing_classes=thing_classes),
    dict(type="mmseg_m2f.MaskAP"),
    dict(type="mmseg_m2f.SemanticIoU"),
]
test_evaluator = val_evaluator
