# ViT-L of DINOv3 and ViTDet's simple pyramid.
_base_ = "./pyramid_dinov3_vit_b.py"
backbone = dict(model_name="vit_large_patch16_dinov3.lvd1689m")
neck = dict(in_channels=1024)
