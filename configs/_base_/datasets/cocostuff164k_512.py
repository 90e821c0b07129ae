# COCO-Stuff 164k, 171 classes: the `_labelTrainIds` files that mmseg's converter writes.
_base_ = "./common.py"
from mmseg_m2f.config.recipes import draw_short_side, label_map_pipelines, loaders, resize

num_classes = 171
data_root = "data/coco_stuff164k"
crop_size = (512, 512)
train_pipeline, test_pipeline, tta_pipeline = label_map_pipelines(
    crop_size, draw=draw_short_side(512), test_resize=[resize((2048, 512))]
)
train_dataloader, val_dataloader, test_dataloader = loaders(
    train_pipeline,
    test_pipeline,
    both=dict(type="mmseg.COCOStuffDataset", data_root=data_root),
    train=dict(data_prefix=dict(img_path="images/train2017", seg_map_path="annotations/train2017")),
    val=dict(data_prefix=dict(img_path="images/val2017", seg_map_path="annotations/val2017")),
)
data_preprocessor = dict(size=crop_size)
