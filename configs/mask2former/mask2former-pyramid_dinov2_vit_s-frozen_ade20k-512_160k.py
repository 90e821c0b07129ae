# The transformer frozen: its activations are not kept, its weights not changed.
_base_ = "./mask2former-pyramid_dinov2_vit_s_ade20k-512_160k.py"
model = dict(backbone=dict(frozen=True))
