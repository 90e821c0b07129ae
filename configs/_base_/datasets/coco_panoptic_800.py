# COCO 2017 panoptic with MaskFormer's recipe: short side 480...800, half of the time after a crop.
_base_ = "coco_panoptic_1024.py"

crop_size = (600, 600)  # the largest crop; images keep the size that the short side gives them
short_sides = dict(_base_.random_scale, scales=list(range(480, 801, 32)), max_size=1333)
crop_first = [
    dict(_base_.random_scale, scales=[400, 500, 600], max_size=4200),
    dict(type="mmdet.RandomCrop", crop_size=(384, 600), crop_type="absolute_range"),
]
train_pipeline = [
    _base_.load_image,
    _base_.load_panoptic,
    _base_.random_flip,
    dict(type="mmengine.RandomChoice", transforms=[[short_sides], [*crop_first, short_sides]]),
    *_base_.finish,
]
# One image per process, as published: images of a batch would differ in size.
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
data_preprocessor = dict(pad_size_divisor=1)
