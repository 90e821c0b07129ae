# ADE20K objects, 100 classes: `ade20k_instance_{train,val}.json` in the folder ADEChallengeData2016.
_base_ = "common_instance.py"

num_classes = 100
data_root = "data/ade/ADEChallengeData2016"
crop_size = (640, 640)
train_pipeline = [
    _base_.load_image,
    _base_.load_objects,
    dict(
        type="mmengine.RandomChoiceResize",
        resize_type="mmdet.Resize",
        scales=[(2560, int(640 * 0.1 * step)) for step in range(5, 21)],
        keep_ratio=True,
    ),
    dict(_base_.random_crop, crop_size=crop_size),
    dict(type="mmseg.PhotoMetricDistortion"),
    dict(type="mmdet.RandomFlip", prob=0.5),
    *_base_.finish,
]
test_pipeline = [
    _base_.load_image,
    dict(type="mmdet.Resize", scale=(2560, 640), keep_ratio=True),
    _base_.load_objects,
    _base_.pack_for_test,
]
train_dataloader = dict(
    dataset=dict(
        type="mmseg_m2f.CocoInstance",
        data_root=data_root,
        ann_file="ade20k_instance_train.json",
        data_prefix=dict(img_path="images/training"),
        drop_empty=True,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="mmseg_m2f.CocoInstance",
        data_root=data_root,
        ann_file="ade20k_instance_val.json",
        data_prefix=dict(img_path="images/validation"),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
data_preprocessor = dict(
    batch_augments=[
        dict(type="mmdet.BatchFixedSizePad", size=crop_size, img_pad_value=0, pad_mask=False, pad_seg=False)
    ]
)
