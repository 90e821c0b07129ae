# The published recipe over 160,000 iterations with steps: learning rate divided by 10 twice near the end (Mask DINO).
_base_ = "./adamw_160k.py"
from mmseg_m2f.config.recipes import step_schedule

max_iters, param_scheduler, train_cfg = step_schedule(160000, milestones=[135000, 150000])
