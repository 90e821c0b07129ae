# timm's ViT-Ti (192 channels) with 4 of its 12 blocks and patches of 8, random weights, which are trained, and two of
# PMT's blocks. A leaf passes the neck as well.
backbone = dict(
    type="mmseg_m2f.TimmPlainViT",
    model_name="vit_tiny_patch16_224",
    out_indices=(0, 1, 2, 3),
    as_tokens=True,
    norm=True,
    img_size=(96, 96),
    patch_size=8,
    model_options=dict(depth=4),
)
neck = dict(type="mmseg_m2f.FrozenEncoderBlocks", in_channels=192, num_blocks=2)
