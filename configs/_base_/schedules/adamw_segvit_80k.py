# SegViT's recipe for PASCAL-Context: 80,000 iterations, weight decay 0.03.
_base_ = "./adamw_segvit_160k.py"
from mmseg_m2f.config.recipes import poly_schedule

optim_wrapper = dict(optimizer=dict(weight_decay=0.03))
max_iters, param_scheduler, train_cfg = poly_schedule(80000, power=1.0, warmup=1500)
