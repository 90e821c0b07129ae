# The same in less memory: the pixel decoder's encoder layers are computed again in the backward pass.
_base_ = "./mask2former_r50_ade20k-512_160k.py"
model = dict(decode_head=dict(pixel_decoder=dict(recompute=True)))
