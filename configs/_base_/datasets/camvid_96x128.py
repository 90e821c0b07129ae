# CamVid at half its size in small crops: many iterations on a CPU. Judged at full size.
_base_ = "./camvid_240x320.py"
from mmseg_m2f.config.recipes import draw_short_side, label_map_pipelines, loaders, resize

crop_size = (96, 128)
train_pipeline, test_pipeline, tta_pipeline = label_map_pipelines(
    crop_size,
    draw=draw_short_side(180, steps=range(6, 15)),
    test_resize=[resize((240, 180))],
    void_labels=[11],
)
train_dataloader, val_dataloader, test_dataloader = loaders(train_pipeline, test_pipeline)
data_preprocessor = dict(size=crop_size)
