# The long schedule of the published DETR models: 500 epochs, learning rate divided by 10 after 334.
_base_ = "./adamw_detr_150e.py"
max_iters = 3696500
param_scheduler = [
    dict(type="mmengine.MultiStepLR", milestones=[2469262], gamma=0.1, begin=0, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters)
