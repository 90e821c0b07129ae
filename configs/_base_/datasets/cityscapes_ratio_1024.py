# Cityscapes: short side 512...2048 from a continuous range, 1024 x 1024 crops; tested at full size.
_base_ = "./cityscapes_512x1024.py"
from mmseg_m2f.config.recipes import draw_ratio, label_map_pipelines, loaders, resize

crop_size = (1024, 1024)
train_pipeline, test_pipeline, tta_pipeline = label_map_pipelines(
    crop_size, draw=draw_ratio((2048, 1024)), test_resize=[resize((2048, 1024))]
)
train_dataloader, val_dataloader, test_dataloader = loaders(train_pipeline, test_pipeline)
train_dataloader.update(batch_size=1)
data_preprocessor = dict(size=crop_size)
