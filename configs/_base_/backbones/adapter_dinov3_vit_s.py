# ViT-S of DINOv3, frozen, with the adapter of its Mask2Former.
_base_ = "./adapter_dinov3_vit_b.py"
backbone = dict(model_name="vit_small_patch16_dinov3.lvd1689m", adapter=dict(num_heads=6))  # 16 do not divide 192
