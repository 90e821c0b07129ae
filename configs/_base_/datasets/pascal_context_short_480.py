# PASCAL-Context tested at short side 520, so that every image covers a window of 480 pixels.
_base_ = "./pascal_context_480.py"
from mmseg_m2f.config.recipes import draw_ratio, label_map_pipelines, loaders

train_pipeline, test_pipeline, tta_pipeline = label_map_pipelines(
    _base_.crop_size,
    draw=draw_ratio((520, 520)),
    test_resize=[dict(type="mmseg.ResizeShortestEdge", scale=520, max_size=2080)],
)
train_dataloader, val_dataloader, test_dataloader = loaders(train_pipeline, test_pipeline)
