# ViT-L of DINOv3, frozen, with the adapter of its Mask2Former on the published blocks.
_base_ = "./adapter_dinov3_vit_b.py"
backbone = dict(model_name="vit_large_patch16_dinov3.lvd1689m", out_indices=(4, 11, 17, 23))
