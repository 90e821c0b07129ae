# What all datasets share. Each dataset config adds: num_classes, crop_size, data_root, geometry, folders.
_base_ = "loaders.py"

# Reading goes through a check that names the file at fault: missing, truncated, or with unknown labels.
load_image = dict(
    type="mmseg_m2f.CheckedLoading",
    transforms=[dict(type="mmengine.LoadImageFromFile", imdecode_backend="pillow")],
)
load_labels = dict(type="mmseg_m2f.CheckedLoading", transforms=[dict(type="mmseg_m2f.LoadLabelMap")])
# A data set adds `scales` and `max_size`, or `crop_size`.
random_scale = dict(type="mmengine.RandomChoiceResize", resize_type="mmseg.ResizeShortestEdge")
random_crop = dict(type="mmseg.RandomCrop", cat_max_ratio=0.75)
pack = [dict(type="mmseg.PackSegInputs")]
vary_and_pack = [
    dict(type="mmengine.RandomFlip", prob=0.5),
    dict(type="mmseg.PhotoMetricDistortion"),
    *pack,
    dict(type="mmseg_m2f.ListClasses"),
]
# Test-time augmentation: every size with and without flip.
tta_ratios = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
flip_views = [dict(type="mmengine.RandomFlip", prob=0.0), dict(type="mmengine.RandomFlip", prob=1.0)]

val_evaluator = dict(type="mmseg_m2f.SemanticIoU")
test_evaluator = val_evaluator

data_preprocessor = dict(
    type="mmseg.SegDataPreProcessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    test_cfg=dict(size_divisor=32),
)
