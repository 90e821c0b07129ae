# The published recipe for COCO: 50 epochs of batches of 16, learning rate divided by 10 near the end.
_base_ = "./adamw_160k.py"
max_iters = 368750
param_scheduler = [
    dict(type="mmengine.MultiStepLR", milestones=[327778, 355092], gamma=0.1, begin=0, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters)
