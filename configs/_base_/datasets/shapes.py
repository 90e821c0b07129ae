# Generated scenes, 8 classes, void 255: nothing to download. Different seeds never share a scene.
_base_ = "./common.py"

num_classes = 8
crop_size = (96, 96)  # height and width of the scenes
train_pipeline = [dict(type="mmengine.RandomFlip", prob=0.5), dict(type="mmseg.PackSegInputs")]
test_pipeline = [dict(type="mmseg.PackSegInputs")]
tta_pipeline = [
    dict(
        type="mmengine.TestTimeAug",
        transforms=[
            # The truth is taken from the first view, which therefore leaves the scene as it is.
            [dict(type="mmengine.Resize", scale_factor=ratio, keep_ratio=True) for ratio in (1.0, 1.5)],
            [dict(type="mmengine.RandomFlip", prob=prob) for prob in (0.0, 1.0)],
            [dict(type="mmseg.PackSegInputs")],
        ],
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        type="mmseg_m2f.GeneratedShapes", length=100000, seed=0, image_size=crop_size, pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        type="mmseg_m2f.GeneratedShapes",
        length=128,
        seed=1,
        image_size=crop_size,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
data_preprocessor = dict(size=crop_size)
