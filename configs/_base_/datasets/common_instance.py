# What instance data sets share. Each adds: num_classes, crop_size, data_root, geometry, folders.
_base_ = "loaders.py"

load_image = dict(
    type="mmseg_m2f.CheckedLoading",
    transforms=[dict(type="mmengine.LoadImageFromFile", imdecode_backend="pillow")],
)
load_objects = dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True)
# A data set adds `crop_size`.
random_crop = dict(type="mmdet.RandomCrop", recompute_bbox=True, allow_negative_crop=True)
# Objects that the crop emptied are dropped; images without any object stay and teach what is none.
finish = [
    dict(type="mmdet.FilterAnnotations", min_gt_bbox_wh=(1e-5, 1e-5), by_mask=True, keep_empty=False),
    dict(type="mmdet.PackDetInputs"),
    dict(type="mmseg_m2f.CompactSegments"),
]
pack_for_test = dict(
    type="mmdet.PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
)
val_evaluator = dict(type="mmseg_m2f.MaskAP")
test_evaluator = val_evaluator
data_preprocessor = dict(
    type="mmdet.DetDataPreprocessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_size_divisor=32,
)
