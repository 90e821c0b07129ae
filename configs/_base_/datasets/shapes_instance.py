# The objects of the generated scenes, 5 classes; stuff is background.
_base_ = "shapes_panoptic.py"

num_classes = 5
thing_classes = list(range(num_classes))
# The line of void around each object is background: left out, masks would grow over it, which costs AP.
take_things = dict(type="mmseg_m2f.SegmentsToObjects", thing_classes=_base_.thing_classes, ignore_void=False)
pack = dict(type="mmdet.PackDetInputs", meta_keys=_base_.meta_keys)
compact = dict(type="mmseg_m2f.CompactSegments")
train_pipeline = [dict(type="mmengine.RandomFlip", prob=0.5), take_things, pack, compact]
test_pipeline = [take_things, pack]
dataset_metainfo = dict(
    classes=("disc", "square", "triangle", "cross", "ring"),
    palette=[(220, 50, 47), (250, 200, 40), (40, 170, 80), (50, 90, 220), (180, 60, 200)],
    thing_ids=thing_classes,
    stuff_ids=[],
)
train_dataloader = dict(dataset=dict(metainfo=dataset_metainfo, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(metainfo=dataset_metainfo, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [dict(type="mmseg_m2f.MaskAP")]
test_evaluator = val_evaluator
