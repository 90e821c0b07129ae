# ViT-B/16 of CLIP's images (arXiv 2103.00020) and ViTDet's simple pyramid.
_base_ = "./pyramid_mae_vit_b.py"
normalization = dict(  # what the weights expect
    mean=[122.7709383, 116.7460125, 104.09373615], std=[68.5005327, 66.6321579, 70.32316305]
)
backbone = dict(model_name="vit_base_patch16_clip_224.openai")
