# ViT-B of DINOv2 with registers (arXiv 2304.07193, 2309.16588), patches of 14 resampled to 16, with ViT-Adapter (arXiv
# 2205.08534): maps of stride 4, 8, 16 and 32. Needs the extra `timm`.
backbone = dict(type="mmseg_m2f.ViTAdapter", model_name="vit_base_patch14_reg4_dinov2.lvd142m", pretrained=True)
