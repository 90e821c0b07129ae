# ViT-L of MAE and ViTDet's simple pyramid.
_base_ = "./pyramid_mae_vit_b.py"
backbone = dict(model_name="vit_large_patch16_224.mae", model_options=dict(drop_path_rate=0.4))
neck = dict(in_channels=1024)
