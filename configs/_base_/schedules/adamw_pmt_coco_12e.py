# PMT's recipe (arXiv 2603.25398): AdamW, one learning rate, linear warm-up, cosine decay, gradients clipped to 0.01,
# masks annealed. Batch 16.
_base_ = "./adamw_160k.py"
max_iters = 88692
optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(backbone_lr_mult=1.0))
param_scheduler = [
    dict(type="mmengine.LinearLR", start_factor=1e-6, begin=0, end=6000, by_epoch=False),
    dict(type="mmengine.CosineAnnealingLR", eta_min=1e-9, begin=6000, end=max_iters, by_epoch=False),
]
later_blocks = [(8 / 30, 13 / 30), (11 / 30, 16 / 30), (14 / 30, 19 / 30), (17 / 30, 22 / 30), (20 / 30, 25 / 30)]
schedule_hooks = [dict(type="mmseg_m2f.MaskAnnealing", blocks=[(0.0, 3000 / max_iters), *later_blocks])]
train_cfg = dict(max_iters=max_iters)
