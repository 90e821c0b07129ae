# ViT-B of MAE (arXiv 2111.06377) and ViTDet's simple pyramid, on maps without the final norm, as published; attention
# is global in all blocks. Needs the extra `timm`. A leaf passes the neck as well.
backbone = dict(
    type="mmseg_m2f.TimmPlainViT",
    model_name="vit_base_patch16_224.mae",
    pretrained=True,
    model_options=dict(drop_path_rate=0.1),
)
neck = dict(type="mmseg_m2f.SimplePyramid", in_channels=768)
