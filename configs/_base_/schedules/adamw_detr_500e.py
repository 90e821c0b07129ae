# The long schedule of the published DETR models: 500 epochs, learning rate divided by 10 after 334.
_base_ = "./adamw_detr_150e.py"
from mmseg_m2f.config.recipes import step_schedule

max_iters, param_scheduler, train_cfg = step_schedule(3696500, milestones=[2469262])
