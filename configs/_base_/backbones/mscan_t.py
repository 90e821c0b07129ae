# MSCAN-T (SegNeXt, arXiv 2209.08575), ImageNet-1k weights.
backbone = dict(
    type="mmseg.MSCAN",
    embed_dims=[32, 64, 160, 256],
    mlp_ratios=[8, 8, 4, 4],
    drop_path_rate=0.1,
    depths=[3, 3, 5, 2],
    attention_kernel_sizes=[5, [1, 7], [1, 11], [1, 21]],
    attention_kernel_paddings=[2, [0, 3], [0, 5], [0, 10]],
    norm_cfg=dict(type="BN"),
    init_cfg=dict(
        type="Pretrained",
        checkpoint="https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segnext/mscan_t_20230227-119e8c9f.pth",
    ),
)
