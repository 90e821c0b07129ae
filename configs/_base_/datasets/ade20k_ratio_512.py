# ADE20K with sizes drawn from a continuous range: short side 256...1024, 512 x 512 crops.
_base_ = "./ade20k_512.py"
from mmseg_m2f.config.recipes import draw_ratio, label_map_pipelines, loaders, resize

train_pipeline, test_pipeline, tta_pipeline = label_map_pipelines(
    _base_.crop_size, draw=draw_ratio((2048, 512)), test_resize=[resize((2048, 512))]
)
train_dataloader, val_dataloader, test_dataloader = loaders(train_pipeline, test_pipeline)
