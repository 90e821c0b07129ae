# COCO 2017 instances with EoMT's recipe: large-scale jitter to 1280 x 1280; tests with the long side at 1280, padded.
_base_ = "./coco_instance_1024.py"
from mmseg_m2f.config.recipes import jitter_objects, loaders, object_pipelines, resize

crop_size = (1280, 1280)
train_pipeline, test_pipeline = object_pipelines(
    jitter_objects(crop_size), test_resize=[resize(crop_size, by="mmdet.Resize")]
)
train_dataloader, val_dataloader, test_dataloader = loaders(train_pipeline, test_pipeline)
data_preprocessor = dict(
    pad_size_divisor=1280,  # to the square that the positions are learnt for, in training and in tests
    batch_augments=None,
)
