# COCO 2017 panoptic with MaskFormer's recipe for Swin-L: the long side is at most 1000 in training.
_base_ = "./coco_panoptic_1024.py"
from mmseg_m2f.config.recipes import choose_or_crop_segments, resize, segment_pipelines

crop_size = (600, 600)  # the largest crop; images keep the size that the short side gives them
train_pipeline, test_pipeline = segment_pipelines(
    choose_or_crop_segments(longest=1000), test_resize=[resize((1333, 800))]
)
# One image per process, as published: images of a batch would differ in size.
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
data_preprocessor = dict(pad_size_divisor=1)
