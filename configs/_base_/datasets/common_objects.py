# What data sets with objects or segments share. Each adds: num_classes, crop_size, data_root, pipelines, folders,
# evaluators, and thing_classes where there is stuff.
_base_ = "./loaders.py"

data_preprocessor = dict(
    type="mmdet.DetDataPreprocessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_size_divisor=32,
)
visualizer = dict(type="mmseg_m2f.ObjectVisualizer", vis_backends=[dict(type="mmengine.LocalVisBackend")])
