# MaskFormer's recipe for COCO and Swin: 300 epochs of batches of 64 (64 GPUs × 1 image), linear warm-up.
_base_ = "./adamw_maskformer_swin_160k.py"
max_iters = 554400
param_scheduler = [
    dict(type="mmengine.LinearLR", start_factor=1e-6, begin=0, end=1500, by_epoch=False),
    dict(type="mmengine.MultiStepLR", milestones=[369600], gamma=0.1, begin=0, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters)
auto_scale_lr = dict(base_batch_size=64)
