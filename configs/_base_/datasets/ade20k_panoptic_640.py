# ADE20K panoptic, 100 things and 50 stuff classes: `ade20k_panoptic_{train,val}` in the folder ADEChallengeData2016.
# The order is things first; `mmseg_m2f.checkpoints` reorders the authors' weights, whose order is the semantic one.
_base_ = "common_segments.py"

num_classes = 150
thing_classes = list(range(100))
data_root = "data/ade/ADEChallengeData2016"
crop_size = (640, 640)
train_pipeline = [
    _base_.load_image,
    _base_.load_panoptic,
    dict(_base_.random_scale, scales=[int(640 * 0.1 * step) for step in range(5, 21)], max_size=2560),
    dict(_base_.random_crop, crop_size=crop_size),
    _base_.vary_colours,
    _base_.random_flip,
    dict(_base_.pad, size=crop_size),
    *_base_.finish,
]
test_pipeline = [
    _base_.load_image,
    dict(type="mmengine.Resize", scale=(2560, 640), keep_ratio=True),
    _base_.load_panoptic,  # after resizing: the annotation keeps its original size
    dict(type="mmseg_m2f.SegmentsToObjects"),
    _base_.pack,
]
train_dataloader = dict(
    dataset=dict(
        type="mmseg_m2f.CocoPanoptic",
        data_root=data_root,
        ann_file="ade20k_panoptic_train.json",
        data_prefix=dict(img_path="images/training", seg_map_path="ade20k_panoptic_train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="mmseg_m2f.CocoPanoptic",
        data_root=data_root,
        ann_file="ade20k_panoptic_val.json",
        data_prefix=dict(img_path="images/validation", seg_map_path="ade20k_panoptic_val"),
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
