# ViT-S of DINOv3, frozen, and PMT's blocks.
_base_ = "./tokens_dinov3_vit_b.py"
backbone = dict(model_name="vit_small_patch16_dinov3.lvd1689m")
neck = dict(in_channels=384)
