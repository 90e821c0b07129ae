# timm's ViT-Ti (192 channels) with 4 of its 12 blocks, random weights, and ViT-Adapter: maps of stride 4, 8, 16, 32.
backbone = dict(type="mmseg_m2f.ViTAdapter", model_name="vit_tiny_patch16_224", model_options=dict(depth=4))
