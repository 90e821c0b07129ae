# DSB2018 in crops of about 128² pixels, magnified three times: most nuclei are but 10 to 20 pixels wide. Tests look
# through windows of the same size at the same scale, see the leaf.
_base_ = "./dsb2018_256.py"
from mmseg_m2f.config.recipes import flip_objects, loaders, magnify_objects, object_pipelines, pad_batch, vary_objects

crop_size = (384, 384)
train_pipeline, test_pipeline = object_pipelines(
    [
        magnify_objects(crop_size, factors=(1.75, 2.0, 2.5, 2.75, 3.0, 3.25, 3.5, 4.25)),
        flip_objects(prob=0.75, direction=["horizontal", "vertical", "diagonal"]),
        vary_objects(),
    ],
    test_resize=[],
)
train_dataloader, val_dataloader, test_dataloader = loaders(train_pipeline, test_pipeline)
train_dataloader.update(batch_size=16, num_workers=8)
val_dataloader.update(num_workers=4)
test_dataloader = val_dataloader
data_preprocessor = pad_batch(crop_size)
