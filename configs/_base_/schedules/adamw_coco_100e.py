# The published recipe for COCO with Swin-L: 100 epochs of batches of 16.
_base_ = "./adamw_160k.py"
max_iters = 737500
param_scheduler = [
    dict(type="mmengine.MultiStepLR", milestones=[655556, 710184], gamma=0.1, begin=0, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters)
