# CamVid in smaller crops, for training without a GPU; tested at its full size.
_base_ = "./camvid_360x480.py"
from mmseg_m2f.config.recipes import draw_short_side, label_map_pipelines, resize

crop_size = (240, 320)
train_pipeline, test_pipeline, tta_pipeline = label_map_pipelines(
    crop_size,
    draw=draw_short_side(360, steps=range(6, 15)),
    test_resize=[],
    views_resize=resize((480, 360)),
    void_labels=[11],
)
train_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1)
test_dataloader = val_dataloader
data_preprocessor = dict(size=crop_size)
