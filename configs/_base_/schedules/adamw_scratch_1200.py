# From random weights in 1200 iterations: what a small vision transformer needs for the generated shapes.
_base_ = "./adamw_scratch_1500.py"
max_iters = 1200
param_scheduler = [
    dict(type="mmengine.LinearLR", start_factor=0.01, begin=0, end=100, by_epoch=False),
    dict(type="mmengine.PolyLR", eta_min=0.0, power=0.9, begin=100, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=200)
