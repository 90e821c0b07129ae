# EfficientNetV2-S (arXiv 2104.00298) as an example of any timm model; needs the extra `timm`.
normalization = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])  # what the weights expect
backbone = dict(type="mmseg.TIMMBackbone", model_name="tf_efficientnetv2_s", pretrained=True, out_indices=(1, 2, 3, 4))
