# ViT-g of DINOv2 with registers (arXiv 2304.07193, 2309.16588), patches of 14 resampled to 16; needs the extra `timm`.
# A leaf adds img_size.
backbone = dict(
    type="mmseg_m2f.TimmTokenStream", model_name="vit_giant_patch14_reg4_dinov2.lvd142m", patch_size=16, pretrained=True
)
