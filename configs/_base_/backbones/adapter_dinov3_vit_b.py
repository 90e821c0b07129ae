# ViT-B of DINOv3 (arXiv 2508.10104), frozen, with the adapter of its Mask2Former (arXiv 2205.08534 without injectors):
# maps of stride 4, 8, 16 and 32. Needs the extra `timm`; the weights have a licence of their own.
backbone = dict(
    type="mmseg_m2f.ViTAdapter",
    model_name="vit_base_patch16_dinov3.lvd1689m",
    injectors=False,
    frozen=True,
    adapter=dict(num_heads=16, drop_path_rate=0.3),
    pretrained=True,
)
