# ViT-B/16 of AugReg (arXiv 2106.10270), ImageNet-21k weights, and ViTDet's simple pyramid.
_base_ = "./pyramid_mae_vit_b.py"
normalization = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])  # what the weights expect
backbone = dict(model_name="vit_base_patch16_224.augreg_in21k")
