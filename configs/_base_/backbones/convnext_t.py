# ConvNeXt-T (arXiv 2201.03545), timm's default weights; needs the extra `timm`.
backbone = dict(type="mmseg.TIMMBackbone", model_name="convnext_tiny", pretrained=True, drop_path_rate=0.3)
