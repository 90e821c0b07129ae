# The published recipe (arXiv 2112.01527, section 4.1): AdamW, polynomial decay, gradients clipped to 0.01,
# backbone ten times slower, no decay for norms, embeddings and position tables. Batch 16: 8 GPUs × 2 images.
max_iters = 160000
optim_wrapper = dict(
    type="mmengine.OptimWrapper",
    constructor="mmseg_m2f.ParameterRule",
    optimizer=dict(type="mmengine.AdamW", lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    paramwise_cfg=dict(backbone_lr_mult=0.1),
)
param_scheduler = [
    dict(type="mmengine.PolyLR", eta_min=0.0, power=0.9, begin=0, end=max_iters, by_epoch=False),
]
train_cfg = dict(type="mmengine.IterBasedTrainLoop", max_iters=max_iters, val_interval=5000)
val_cfg = dict(type="mmengine.ValLoop")
test_cfg = dict(type="mmengine.TestLoop")
auto_scale_lr = dict(enable=False, base_batch_size=16)
