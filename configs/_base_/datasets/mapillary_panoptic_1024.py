# Mapillary Vistas v1.2 panoptic, 37 things and 28 stuff classes in the order of the semantic classes: training/ and
# validation/ with images and v1.2/panoptic.
_base_ = "common_segments.py"

num_classes = 65
thing_classes = [0, 1, 8, *range(19, 24), *range(32, 43), *range(44, 58), *range(59, 63)]
data_root = "data/mapillary"
crop_size = (1024, 1024)
train_pipeline = [
    _base_.load_image,
    _base_.load_panoptic,
    dict(_base_.random_scale, scales=[int(2048 * 0.1 * step) for step in range(5, 21)], max_size=8192),
    dict(_base_.random_crop, crop_size=crop_size),
    _base_.vary_colours,
    _base_.random_flip,
    dict(_base_.pad, size=crop_size),
    *_base_.finish,
]
test_pipeline = [
    _base_.load_image,
    dict(type="mmengine.Resize", scale=(2048, 2048), keep_ratio=True),
    _base_.load_panoptic,  # after resizing: the annotation keeps its original size
    dict(type="mmseg_m2f.SegmentsToObjects"),
    _base_.pack,
]
train_dataloader = dict(
    dataset=dict(
        type="mmseg_m2f.CocoPanoptic",
        data_root=data_root,
        ann_file="training/v1.2/panoptic/panoptic_2018.json",
        data_prefix=dict(img_path="training/images", seg_map_path="training/v1.2/panoptic"),
        things_first=False,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="mmseg_m2f.CocoPanoptic",
        data_root=data_root,
        ann_file="validation/v1.2/panoptic/panoptic_2018.json",
        data_prefix=dict(img_path="validation/images", seg_map_path="validation/v1.2/panoptic"),
        things_first=False,
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
