# timm's ViT-Ti (192 channels) with 6 of its 12 blocks and patches of 8, random weights. A leaf adds img_size.
backbone = dict(
    type="mmseg_m2f.TimmTokenStream",
    model_name="vit_tiny_patch16_224",
    num_joint_blocks=2,
    patch_size=8,
    model_options=dict(depth=6),
)
