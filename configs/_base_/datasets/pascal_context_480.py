# PASCAL-Context, 59 classes (label 0, background, is void): VOC2010 with the label maps of mmseg's converter.
_base_ = "./common.py"
from mmseg_m2f.config.recipes import draw_ratio, label_map_pipelines, loaders, resize

num_classes = 59
data_root = "data/VOCdevkit/VOC2010"
crop_size = (480, 480)
train_pipeline, test_pipeline, tta_pipeline = label_map_pipelines(
    crop_size, draw=draw_ratio((520, 520)), test_resize=[resize((520, 520))]
)
train_dataloader, val_dataloader, test_dataloader = loaders(
    train_pipeline,
    test_pipeline,
    both=dict(
        type="mmseg.PascalContextDataset59",
        data_root=data_root,
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassContext"),
    ),
    train=dict(ann_file="ImageSets/SegmentationContext/train.txt"),
    val=dict(ann_file="ImageSets/SegmentationContext/val.txt"),
)
data_preprocessor = dict(size=crop_size)
