# ViT-L/16 of AugReg with ViT-Adapter.
_base_ = "./adapter_augreg_vit_b.py"
backbone = dict(model_name="vit_large_patch16_224.augreg_in21k")
