# ViT-L of DINOv3 (arXiv 2508.10104), rotary positions; needs the extra `timm`. A leaf adds img_size.
backbone = dict(
    type="mmseg_m2f.TimmTokenStream", model_name="vit_large_patch16_dinov3.lvd1689m", patch_size=16, pretrained=True
)
