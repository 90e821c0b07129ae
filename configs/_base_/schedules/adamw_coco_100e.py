# The published recipe for COCO with Swin-L: 100 epochs of batches of 16.
_base_ = "./adamw_160k.py"
from mmseg_m2f.config.recipes import step_schedule

max_iters, param_scheduler, train_cfg = step_schedule(737500, milestones=[655556, 710184])
