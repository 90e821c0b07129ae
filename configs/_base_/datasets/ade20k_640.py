# ADE20K with the recipe of the larger backbones: 640 x 640 crops, short side 320...1280, tests at 640.
_base_ = "./ade20k_512.py"
from mmseg_m2f.config.recipes import draw_short_side, label_map_pipelines, loaders, resize

crop_size = (640, 640)
train_pipeline, test_pipeline, tta_pipeline = label_map_pipelines(
    crop_size, draw=draw_short_side(640), test_resize=[resize((2560, 640))]
)
train_dataloader, val_dataloader, test_dataloader = loaders(train_pipeline, test_pipeline)
data_preprocessor = dict(size=crop_size)
