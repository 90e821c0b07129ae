# MaskFormer's recipe for ResNets over 720,000 iterations.
_base_ = "./adamw_maskformer_160k.py"
max_iters = 720000
param_scheduler = [
    dict(type="mmengine.PolyLR", eta_min=0.0, power=0.9, begin=0, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters)
