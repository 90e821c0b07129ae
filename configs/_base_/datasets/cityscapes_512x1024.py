# Cityscapes, 19 classes: leftImg8bit and gtFine with the `_labelTrainIds` files of cityscapesscripts.
_base_ = "./common.py"
from mmseg_m2f.config.recipes import draw_short_side, label_map_pipelines, loaders, resize

num_classes = 19
data_root = "data/cityscapes"
crop_size = (512, 1024)
train_pipeline, test_pipeline, tta_pipeline = label_map_pipelines(
    crop_size, draw=draw_short_side(1024), test_resize=[resize((2048, 1024))]
)
train_dataloader, val_dataloader, test_dataloader = loaders(
    train_pipeline,
    test_pipeline,
    both=dict(type="mmseg.CityscapesDataset", data_root=data_root),
    train=dict(data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")),
    val=dict(data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val")),
)
data_preprocessor = dict(size=crop_size)
