# timm's ViT-Ti (192 channels) with 6 of its 12 blocks and patches of 8, random weights, and ViTDet's simple pyramid:
# maps of stride 4, 8 and 16. A leaf passes the neck as well.
backbone = dict(
    type="mmseg_m2f.TimmPlainViT",
    model_name="vit_tiny_patch16_224",
    img_size=(96, 96),
    patch_size=8,
    model_options=dict(depth=6),
)
neck = dict(type="mmseg_m2f.SimplePyramid", in_channels=192, channels=64, scales=(2, 1, 0.5))
