# What data sets with label maps share. Each adds: num_classes, crop_size, data_root, pipelines, folders.
_base_ = "./loaders.py"

val_evaluator = dict(type="mmseg_m2f.SemanticIoU")
test_evaluator = val_evaluator
data_preprocessor = dict(
    type="mmseg.SegDataPreProcessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    test_cfg=dict(size_divisor=32),
)
visualizer = dict(type="mmseg_m2f.SemanticVisualizer", vis_backends=[dict(type="mmengine.LocalVisBackend")])
