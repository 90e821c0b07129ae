# MaskFormer's recipe for COCO and ResNets: 300 epochs of batches of 64 (64 GPUs × 1 image).
_base_ = "./adamw_maskformer_160k.py"
max_iters = 554400
param_scheduler = [
    dict(type="mmengine.MultiStepLR", milestones=[369600], gamma=0.1, begin=0, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters)
auto_scale_lr = dict(base_batch_size=64)
