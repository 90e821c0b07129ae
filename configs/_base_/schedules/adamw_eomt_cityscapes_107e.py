# EoMT's recipe for Cityscapes: 107 epochs.
_base_ = "./adamw_eomt_coco_12e.py"
max_iters = 19902
train_cfg = dict(max_iters=max_iters, val_interval=1000)
