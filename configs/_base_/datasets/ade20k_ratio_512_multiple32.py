# ADE20K as in ade20k_ratio_512, tested at sides that are resized, not padded, to multiples of 32.
_base_ = "./ade20k_512.py"
from mmseg_m2f.config.recipes import draw_ratio, label_map_pipelines, loaders, resize

train_pipeline, test_pipeline, tta_pipeline = label_map_pipelines(
    _base_.crop_size,
    draw=draw_ratio((2048, 512)),
    test_resize=[resize((2048, 512)), dict(type="mmseg.ResizeToMultiple", size_divisor=32)],
)
train_dataloader, val_dataloader, test_dataloader = loaders(train_pipeline, test_pipeline)
