# SegViT's recipe for COCO-Stuff 10k: 80,000 iterations, weight decay 0.02, quadratic decay of the learning rate.
_base_ = "./adamw_segvit_80k.py"
optim_wrapper = dict(optimizer=dict(weight_decay=0.02))
param_scheduler = [
    dict(type="mmengine.LinearLR", start_factor=1e-6, begin=0, end=1500, by_epoch=False),
    dict(type="mmengine.PolyLR", eta_min=0.0, power=2.0, begin=1500, end=_base_.max_iters, by_epoch=False),
]
