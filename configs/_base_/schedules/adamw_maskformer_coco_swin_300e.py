# MaskFormer's recipe for COCO and Swin: 300 epochs of batches of 64 (64 GPUs × 1 image), linear warm-up.
_base_ = "./adamw_maskformer_swin_160k.py"
from mmseg_m2f.config.recipes import step_schedule

max_iters, param_scheduler, train_cfg = step_schedule(554400, milestones=[369600], warmup=1500)
auto_scale_lr = dict(base_batch_size=64)
