# EfficientNetV2-S (arXiv 2104.00298) as an example of any timm model; needs the extra `timm`.
backbone = dict(type="mmseg.TIMMBackbone", model_name="tf_efficientnetv2_s", pretrained=True, out_indices=(1, 2, 3, 4))
