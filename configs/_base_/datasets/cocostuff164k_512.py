# COCO-Stuff 164k, 171 classes: the `_labelTrainIds` files that mmseg's converter writes.
_base_ = "recipe_512.py"

num_classes = 171
data_root = "data/coco_stuff164k"
train_dataloader = dict(
    dataset=dict(
        type="mmseg.COCOStuffDataset",
        data_root=data_root,
        data_prefix=dict(img_path="images/train2017", seg_map_path="annotations/train2017"),
        pipeline=_base_.train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="mmseg.COCOStuffDataset",
        data_root=data_root,
        data_prefix=dict(img_path="images/val2017", seg_map_path="annotations/val2017"),
        pipeline=_base_.test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
