# ViT-B of DINOv3, frozen, and PMT's blocks.
_base_ = "./tokens_dinov3_vit_l.py"
backbone = dict(model_name="vit_base_patch16_dinov3.lvd1689m", out_indices=(2, 5, 8, 11))
neck = dict(in_channels=768)
