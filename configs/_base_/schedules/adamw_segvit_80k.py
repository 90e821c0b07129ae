# SegViT's recipe for PASCAL-Context: 80,000 iterations, weight decay 0.03.
_base_ = "./adamw_segvit_160k.py"
max_iters = 80000
optim_wrapper = dict(optimizer=dict(weight_decay=0.03))
param_scheduler = [
    dict(type="mmengine.LinearLR", start_factor=1e-6, begin=0, end=1500, by_epoch=False),
    dict(type="mmengine.PolyLR", eta_min=0.0, power=1.0, begin=1500, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters)
