# Batch sizes are per process; the published runs use 8 processes with 2 images each.
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="mmengine.InfiniteSampler", shuffle=True),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="mmengine.DefaultSampler", shuffle=False),
)
test_dataloader = val_dataloader
