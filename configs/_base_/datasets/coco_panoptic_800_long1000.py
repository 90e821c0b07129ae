# COCO 2017 panoptic with MaskFormer's recipe for Swin-L: the long side is at most 1000 in training.
_base_ = "coco_panoptic_800.py"

short_sides = dict(_base_.short_sides, max_size=1000)
train_pipeline = [
    _base_.load_image,
    _base_.load_panoptic,
    _base_.random_flip,
    dict(type="mmengine.RandomChoice", transforms=[[short_sides], [*_base_.crop_first, short_sides]]),
    *_base_.finish,
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
