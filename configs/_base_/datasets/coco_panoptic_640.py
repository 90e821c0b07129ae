# COCO 2017 panoptic with EoMT's recipe: large-scale jitter to 640 x 640; tests with the long side at 640, padded.
_base_ = "coco_panoptic_1024.py"

crop_size = (640, 640)
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
    dict(type="mmengine.Resize", scale=crop_size, keep_ratio=True),
    _base_.load_panoptic,  # after resizing: the annotation keeps its original size
    dict(type="mmseg_m2f.SegmentsToObjects"),
    _base_.pack,
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
data_preprocessor = dict(pad_size_divisor=640)  # to the square that the positions are learnt for
