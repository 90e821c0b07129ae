# Cityscapes objects: the 8 things of the panoptic annotation; stuff is background.
_base_ = "cityscapes_panoptic_512x1024.py"

num_classes = 8
thing_classes = list(range(num_classes))
dataset_metainfo = dict(
    classes=("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
    palette=[
        *([220, 20, 60], [255, 0, 0], [0, 0, 142], [0, 0, 70]),
        *([0, 60, 100], [0, 80, 100], [0, 0, 230], [119, 11, 32]),
    ],
)
compact = dict(type="mmseg_m2f.CompactSegments")
take_things = dict(type="mmseg_m2f.SegmentsToObjects", thing_classes=_base_.thing_classes)
take_things_for_test = dict(take_things, ignore_void=False)
folder = dict(type="mmseg.BaseSegDataset", img_suffix="_leftImg8bit.png", metainfo=dataset_metainfo)
train_dataloader = dict(dataset=dict(folder, pipeline=[*_base_.vary, take_things, _base_.pack, compact]))
val_dataloader = dict(dataset=dict(folder, pipeline=[*_base_.load_for_test, take_things_for_test, _base_.pack]))
test_dataloader = val_dataloader
val_evaluator = [dict(type="mmseg_m2f.MaskAP")]
test_evaluator = val_evaluator
