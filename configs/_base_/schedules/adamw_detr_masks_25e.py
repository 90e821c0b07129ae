# DETR's mask head on top of a trained DETR: 25 epochs in batches of 16, learning rate divided by 10 after 15.
_base_ = "./adamw_detr_150e.py"
from mmseg_m2f.config.recipes import step_schedule

max_iters, param_scheduler, train_cfg = step_schedule(184825, milestones=[110895])
