# What data sets share whose annotation is a map of segments (panoptic files, Cityscapes). Each adds: num_classes,
# thing_classes, crop_size, data_root, load_segments, geometry, folders, evaluators.
_base_ = "loaders.py"

load_image = dict(
    type="mmseg_m2f.CheckedLoading",
    transforms=[dict(type="mmengine.LoadImageFromFile", imdecode_backend="pillow")],
)
load_panoptic = dict(type="mmseg_m2f.CheckedLoading", transforms=[dict(type="mmseg_m2f.LoadPanoptic")])
# A data set adds `scales` and `max_size`, or `crop_size`, or `size` (width, height).
random_scale = dict(type="mmengine.RandomChoiceResize", resize_type="mmseg.ResizeShortestEdge")
random_crop = dict(type="mmseg.RandomCrop")
random_flip = dict(type="mmengine.RandomFlip", prob=0.5)
vary_colours = dict(type="mmseg.PhotoMetricDistortion")
# Here and not in the preprocessor, so that padding is void for all targets; grey as published.
pad = dict(type="mmengine.Pad", pad_val=dict(img=128, seg=255))
pack = dict(type="mmdet.PackDetInputs", meta_keys=("img_path", "ori_shape", "img_shape", "stuff_classes"))
# The end of training pipelines: objects and stuff as one map.
finish = [dict(type="mmseg_m2f.SegmentsToObjects"), pack, dict(type="mmseg_m2f.CompactSegments")]
data_preprocessor = dict(
    type="mmdet.DetDataPreprocessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_size_divisor=32,
)
