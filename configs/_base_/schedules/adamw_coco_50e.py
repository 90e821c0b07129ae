# The published recipe for COCO: 50 epochs of batches of 16, learning rate divided by 10 near the end.
_base_ = "./adamw_160k.py"
from mmseg_m2f.config.recipes import step_schedule

max_iters, param_scheduler, train_cfg = step_schedule(368750, milestones=[327778, 355092])
