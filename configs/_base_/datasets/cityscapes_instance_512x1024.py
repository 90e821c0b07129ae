# Cityscapes objects: the 8 things of the panoptic annotation; stuff is background.
_base_ = "./cityscapes_panoptic_512x1024.py"
from mmseg_m2f.config.recipes import crops_of_segments, loaders, resize, segment_pipelines

num_classes = 8
thing_classes = list(range(num_classes))
dataset_metainfo = dict(
    classes=("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
    palette=[
        *([220, 20, 60], [255, 0, 0], [0, 0, 142], [0, 0, 70]),
        *([0, 60, 100], [0, 80, 100], [0, 0, 230], [119, 11, 32]),
    ],
)
train_pipeline, test_pipeline = segment_pipelines(
    crops_of_segments(_base_.crop_size, short_side=1024),
    test_resize=[resize((2048, 1024))],
    load="mmseg_m2f.LoadCityscapesSegments",
    only_things=_base_.thing_classes,
)
train_dataloader, val_dataloader, test_dataloader = loaders(
    train_pipeline,
    test_pipeline,
    both=dict(type="mmseg.BaseSegDataset", img_suffix="_leftImg8bit.png", metainfo=dataset_metainfo),
)
val_evaluator = [dict(type="mmseg_m2f.MaskAP")]
test_evaluator = val_evaluator
