# ViT-B/16 of AugReg (arXiv 2106.10270), ImageNet-21k weights, with ViT-Adapter (arXiv 2205.08534): maps of stride 4, 8,
# 16 and 32. Needs the extra `timm`.
normalization = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])  # what the weights expect
backbone = dict(
    type="mmseg_m2f.ViTAdapter",
    model_name="vit_base_patch16_224.augreg_in21k",
    pretrained=True,
    model_options=dict(drop_path_rate=0.3),
    adapter=dict(drop_path_rate=0.3),
)
