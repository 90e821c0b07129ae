# MaskFormer's recipe for ResNets over 720,000 iterations.
_base_ = "./adamw_maskformer_160k.py"
from mmseg_m2f.config.recipes import poly_schedule

max_iters, param_scheduler, train_cfg = poly_schedule(720000)
