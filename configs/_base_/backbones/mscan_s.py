# MSCAN-S (SegNeXt, arXiv 2209.08575), ImageNet-1k weights.
backbone = dict(
    type="mmseg.MSCAN",
    embed_dims=[64, 128, 320, 512],
    mlp_ratios=[8, 8, 4, 4],
    drop_path_rate=0.1,
    depths=[2, 2, 4, 2],
    attention_kernel_sizes=[5, [1, 7], [1, 11], [1, 21]],
    attention_kernel_paddings=[2, [0, 3], [0, 5], [0, 10]],
    norm_cfg=dict(type="BN"),
    init_cfg=dict(
        type="Pretrained",
        checkpoint="https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segnext/mscan_s_20230227-f33ccdf2.pth",
    ),
)
