# Cityscapes panoptic, 11 stuff classes and 8 things: leftImg8bit and gtFine as published, nothing to convert.
_base_ = "common_segments.py"

num_classes = 19
thing_classes = list(range(11, 19))
data_root = "data/cityscapes"
crop_size = (512, 1024)
load_segments = dict(type="mmseg_m2f.CheckedLoading", transforms=[dict(type="mmseg_m2f.LoadCityscapesSegments")])
vary = [
    _base_.load_image,
    load_segments,
    dict(_base_.random_scale, scales=[int(1024 * 0.1 * step) for step in range(5, 21)], max_size=4096),
    dict(_base_.random_crop, crop_size=crop_size),
    _base_.vary_colours,
    _base_.random_flip,
]
load_for_test = [
    _base_.load_image,
    dict(type="mmengine.Resize", scale=(2048, 1024), keep_ratio=True),
    load_segments,  # after resizing: the annotation keeps its original size
]
train_dataloader = dict(
    dataset=dict(
        type="mmseg.CityscapesDataset",
        data_root=data_root,
        data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train"),
        seg_map_suffix="_gtFine_instanceIds.png",
        pipeline=[*vary, *_base_.finish],
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="mmseg.CityscapesDataset",
        data_root=data_root,
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
        seg_map_suffix="_gtFine_instanceIds.png",
        pipeline=[*load_for_test, dict(type="mmseg_m2f.SegmentsToObjects"), _base_.pack],
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
