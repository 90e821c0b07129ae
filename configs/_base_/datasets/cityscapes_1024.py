# Cityscapes, 19 classes, in square crops of 1024; short side 512...2048, tests at full size.
_base_ = "./cityscapes_512x1024.py"
from mmseg_m2f.config.recipes import draw_short_side, label_map_pipelines, loaders, resize

crop_size = (1024, 1024)
train_pipeline, test_pipeline, tta_pipeline = label_map_pipelines(
    crop_size, draw=draw_short_side(1024), test_resize=[resize((2048, 1024))]
)
train_dataloader, val_dataloader, test_dataloader = loaders(train_pipeline, test_pipeline)
data_preprocessor = dict(size=crop_size)
