# mmdet's ResNet-50, ImageNet weights, batch norm frozen: backbones of every OpenMMLab library fit.
backbone = dict(
    type="mmdet.ResNet",
    depth=50,
    norm_cfg=dict(type="mmseg_m2f.FrozenBN", requires_grad=False),
    norm_eval=True,
    init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50"),
)
