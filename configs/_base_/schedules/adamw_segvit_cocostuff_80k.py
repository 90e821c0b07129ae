# SegViT's recipe for COCO-Stuff 10k: 80,000 iterations, weight decay 0.02, quadratic decay of the learning rate.
_base_ = "./adamw_segvit_80k.py"
from mmseg_m2f.config.recipes import poly_schedule

optim_wrapper = dict(optimizer=dict(weight_decay=0.02))
max_iters, param_scheduler, train_cfg = poly_schedule(80000, power=2.0, warmup=1500)
