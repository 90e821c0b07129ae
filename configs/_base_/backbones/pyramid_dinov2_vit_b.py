# ViT-B of DINOv2 with registers (arXiv 2304.07193, 2309.16588), patches of 14 resampled to 16, and ViTDet's simple
# pyramid (arXiv 2203.16527): maps of stride 4, 8, 16 and 32. Needs the extra `timm`. A leaf passes the neck as well.
backbone = dict(
    type="mmseg_m2f.TimmPlainViT",
    model_name="vit_base_patch14_reg4_dinov2.lvd142m",
    norm=True,  # a few channels are far larger than the others without
    pretrained=True,
)
neck = dict(type="mmseg_m2f.SimplePyramid", in_channels=768)
