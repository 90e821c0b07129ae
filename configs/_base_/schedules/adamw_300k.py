# The published recipe over 300,000 iterations.
_base_ = "./adamw_160k.py"
max_iters = 300000
param_scheduler = [
    dict(type="mmengine.PolyLR", eta_min=0.0, power=0.9, begin=0, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters)
