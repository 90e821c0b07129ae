# ADE20K, 150 classes (label 0 is void): the folder ADEChallengeData2016 as it is published.
_base_ = "recipe_512.py"

num_classes = 150
data_root = "data/ade/ADEChallengeData2016"
train_dataloader = dict(
    dataset=dict(
        type="mmseg.ADE20KDataset",
        data_root=data_root,
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
        pipeline=_base_.train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="mmseg.ADE20KDataset",
        data_root=data_root,
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        pipeline=_base_.test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
