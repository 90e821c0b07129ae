# PMT's recipe for ADE20K, 16 epochs of batch 16.
_base_ = "./adamw_pmt_coco_12e.py"
max_iters = 20192
param_scheduler = [
    dict(type="mmengine.LinearLR", start_factor=1e-6, begin=0, end=6000, by_epoch=False),
    dict(type="mmengine.CosineAnnealingLR", eta_min=1e-9, begin=6000, end=max_iters, by_epoch=False),
]
schedule_hooks = [dict(type="mmseg_m2f.MaskAnnealing", blocks=[(0.0, 3000 / max_iters), *_base_.later_blocks])]
train_cfg = dict(max_iters=max_iters)
