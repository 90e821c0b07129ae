# ResNet-50 with deep stem ("v1c") and stride 8, ImageNet weights, batch norm trained.
backbone = dict(
    type="mmseg.ResNetV1c",
    depth=50,
    strides=(1, 2, 1, 1),
    dilations=(1, 1, 2, 4),
    contract_dilation=True,
    norm_cfg=dict(type="BN"),
    init_cfg=dict(type="Pretrained", checkpoint="open-mmlab://resnet50_v1c"),
)
