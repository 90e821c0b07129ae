# A Context Cluster of 5 blocks that a CPU trains in minutes; few regions, and no small factors that slow learning.
backbone_channels = [32, 48, 64, 96]
backbone = dict(
    type="mmseg_m2f.ContextCluster",
    arch=dict(
        depths=(1, 1, 2, 1),
        widths=backbone_channels,
        heads=(2, 2, 4, 4),
        head_width=16,
        mlp_ratios=(4, 4, 4, 4),
        folds=(2, 2, 1, 1),
    ),
    layer_scale_init=1.0,
)
