# ResNet-101, ImageNet weights, batch norm frozen.
backbone = dict(
    type="mmseg.ResNet",
    depth=101,
    norm_cfg=dict(type="mmseg_m2f.FrozenBN", requires_grad=False),
    norm_eval=True,
    init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet101"),
)
