# EoMT's recipe (arXiv 2503.19108, appendix): AdamW, learning rates that fall by 0.8 per block towards the input,
# everything decayed, gradients clipped to 0.01, two-stage warm-up, masks annealed. Batch 16: 8 GPUs × 2 images.
_base_ = "./adamw_160k.py"
max_iters = 88692
optim_wrapper = dict(paramwise_cfg=dict(backbone_lr_mult=1.0, layer_decay=0.8, decay_all=True))
param_scheduler = None  # the hook sets the learning rate
schedule_hooks = [
    dict(type="mmseg_m2f.TwoStageWarmup", head_iters=500, backbone_iters=1000, power=0.9),
    dict(type="mmseg_m2f.MaskAnnealing"),
]
train_cfg = dict(max_iters=max_iters)
