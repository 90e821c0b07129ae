# ViT-L of DINOv2 with registers and ViTDet's simple pyramid.
_base_ = "./pyramid_dinov2_vit_b.py"
backbone = dict(model_name="vit_large_patch14_reg4_dinov2.lvd142m")
neck = dict(in_channels=1024)
