# EoMT's recipe for COCO over 24 epochs.
_base_ = "./adamw_eomt_coco_12e.py"
max_iters = 177384
train_cfg = dict(max_iters=max_iters)
