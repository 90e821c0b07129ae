# EoMT's recipe for ADE20K: 31 epochs.
_base_ = "./adamw_eomt_coco_12e.py"
max_iters = 39120
train_cfg = dict(max_iters=max_iters, val_interval=2000)
