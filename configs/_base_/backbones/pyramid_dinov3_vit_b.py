# ViT-B of DINOv3 (arXiv 2508.10104), rotary positions, and ViTDet's simple pyramid. Its weights have a licence of their
# own.
_base_ = "./pyramid_dinov2_vit_b.py"
backbone = dict(model_name="vit_base_patch16_dinov3.lvd1689m")
