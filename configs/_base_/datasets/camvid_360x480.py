# CamVid, 11 classes, 480 x 360 pixels: images/{train,val}/*.jpg, annotations/{train,val}/*.png, void is 11.
_base_ = "./common.py"
from mmseg_m2f.config.recipes import draw_short_side, label_map_pipelines, loaders, resize

num_classes = 11
data_root = "data/camvid"
crop_size = (360, 480)
dataset_metainfo = dict(
    classes=(
        *("Sky", "Building", "Pole", "Road", "Pavement", "Tree"),
        *("SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
    ),
    palette=[
        *([128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0]),
        *([192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192]),
    ],
)
train_pipeline, test_pipeline, tta_pipeline = label_map_pipelines(
    crop_size, draw=draw_short_side(360), test_resize=[], views_resize=resize((480, 360)), void_labels=[11]
)
train_dataloader, val_dataloader, test_dataloader = loaders(
    train_pipeline,
    test_pipeline,
    both=dict(type="mmseg.BaseSegDataset", data_root=data_root, metainfo=dataset_metainfo),
    train=dict(data_prefix=dict(img_path="images/train", seg_map_path="annotations/train")),
    val=dict(data_prefix=dict(img_path="images/val", seg_map_path="annotations/val")),
)
train_dataloader.update(batch_size=8)
data_preprocessor = dict(size=crop_size)
