# Generated scenes with objects and stuff, 3 stuff classes and 5 thing classes: nothing to download.
_base_ = "loaders.py"

num_classes = 8
thing_classes = [3, 4, 5, 6, 7]
crop_size = (96, 96)  # height and width of the scenes
meta_keys = ("img_path", "ori_shape", "img_shape", "stuff_classes")
test_pipeline = [dict(type="mmseg_m2f.SegmentsToObjects"), dict(type="mmdet.PackDetInputs", meta_keys=meta_keys)]
compact = dict(type="mmseg_m2f.CompactSegments")
train_pipeline = [dict(type="mmengine.RandomFlip", prob=0.5), *test_pipeline, compact]
scenes = dict(type="mmseg_m2f.GeneratedShapes", image_size=crop_size, segments=True)
train_dataloader = dict(
    batch_size=8, num_workers=1, dataset=dict(scenes, length=100000, seed=0, pipeline=train_pipeline)
)
val_dataloader = dict(
    batch_size=8, num_workers=1, dataset=dict(scenes, length=128, seed=1, pipeline=test_pipeline, test_mode=True)
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type="mmseg_m2f.PanopticQuality", thing_classes=thing_classes),
    dict(type="mmseg_m2f.MaskAP"),
    dict(type="mmseg_m2f.SemanticIoU"),
]
test_evaluator = val_evaluator
data_preprocessor = dict(
    type="mmdet.DetDataPreprocessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_seg=True,
)
visualizer = dict(type="mmseg_m2f.ObjectVisualizer", vis_backends=[dict(type="mmengine.LocalVisBackend")])
