# MobileNetV2 (arXiv 1801.04381) with stride 8, ImageNet weights, batch norm trained.
backbone = dict(
    type="mmseg.MobileNetV2",
    strides=(1, 2, 2, 1, 1, 1, 1),
    dilations=(1, 1, 1, 2, 2, 4, 4),
    out_indices=(1, 2, 4, 6),
    norm_cfg=dict(type="BN"),
    init_cfg=dict(type="Pretrained", checkpoint="mmcls://mobilenet_v2"),
)
