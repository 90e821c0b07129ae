# DSB2018 in crops of about 90² pixels, magnified two to three times, for models that a CPU trains.
_base_ = "./dsb2018_256.py"
from mmseg_m2f.config.recipes import flip_objects, loaders, magnify_objects, object_pipelines, pad_batch, vary_objects

crop_size = (224, 224)
train_pipeline, test_pipeline = object_pipelines(
    [
        magnify_objects(crop_size, factors=(1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5)),
        flip_objects(prob=0.75, direction=["horizontal", "vertical", "diagonal"]),
        vary_objects(),
    ],
    test_resize=[],
)
train_dataloader, val_dataloader, test_dataloader = loaders(train_pipeline, test_pipeline)
train_dataloader.update(batch_size=6, num_workers=1)
data_preprocessor = pad_batch(crop_size)
