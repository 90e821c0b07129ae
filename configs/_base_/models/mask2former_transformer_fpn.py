# Mask2Former with MaskFormer's pixel decoder: a transformer on the coarsest map, then an FPN. No dropout.
_base_ = "./mask2former.py"
model = dict(decode_head=dict(pixel_decoder=dict(type="mmseg_m2f.TransformerFPNPixelDecoder", dropout=0.0)))
