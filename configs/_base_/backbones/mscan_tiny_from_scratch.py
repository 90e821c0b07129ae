# An MSCAN of 5 blocks from random weights that a CPU trains in minutes.
backbone = dict(
    type="mmseg.MSCAN",
    embed_dims=[32, 48, 64, 96],
    mlp_ratios=[4, 4, 4, 4],
    drop_path_rate=0.0,
    depths=[1, 1, 2, 1],
    attention_kernel_sizes=[5, [1, 7], [1, 11], [1, 21]],
    attention_kernel_paddings=[2, [0, 3], [0, 5], [0, 10]],
    norm_cfg=dict(type="BN"),
)
