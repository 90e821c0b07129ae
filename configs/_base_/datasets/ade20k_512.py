# ADE20K, 150 classes (label 0 is void): the folder ADEChallengeData2016 as it is published.
# The published recipe in 512 x 512 crops: short side 256...1024, SSD colours, flips; tests at short side 512.
_base_ = "./common.py"
from mmseg_m2f.config.recipes import draw_short_side, label_map_pipelines, loaders, resize

num_classes = 150
data_root = "data/ade/ADEChallengeData2016"
crop_size = (512, 512)
train_pipeline, test_pipeline, tta_pipeline = label_map_pipelines(
    crop_size, draw=draw_short_side(512), test_resize=[resize((2048, 512))]
)
train_dataloader, val_dataloader, test_dataloader = loaders(
    train_pipeline,
    test_pipeline,
    both=dict(type="mmseg.ADE20KDataset", data_root=data_root),
    train=dict(data_prefix=dict(img_path="images/training", seg_map_path="annotations/training")),
    val=dict(data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation")),
)
data_preprocessor = dict(size=crop_size)
