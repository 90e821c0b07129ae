# Low-rank changes of the transformer's attention instead of its weights (LoRA, arXiv 2106.09685).
_base_ = "./mask2former-pyramid_dinov2_vit_s_ade20k-512_160k.py"
model = dict(backbone=dict(lora=dict(rank=16)))
