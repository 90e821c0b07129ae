# DETR's mask head on top of a trained DETR: 25 epochs in batches of 16, learning rate divided by 10 after 15.
_base_ = "./adamw_detr_150e.py"
max_iters = 184825
param_scheduler = [
    dict(type="mmengine.MultiStepLR", milestones=[110895], gamma=0.1, begin=0, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters)
