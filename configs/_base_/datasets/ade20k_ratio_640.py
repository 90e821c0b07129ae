# ADE20K with sizes drawn from a continuous range: short side 320...1280, 640 x 640 crops, tests at 640 but no longer
# than 2048.
_base_ = "./ade20k_512.py"
from mmseg_m2f.config.recipes import draw_ratio, label_map_pipelines, loaders, resize

crop_size = (640, 640)
train_pipeline, test_pipeline, tta_pipeline = label_map_pipelines(
    crop_size, draw=draw_ratio((2048, 640)), test_resize=[resize((2048, 640))]
)
train_dataloader, val_dataloader, test_dataloader = loaders(train_pipeline, test_pipeline)
data_preprocessor = dict(size=crop_size)
