# MaskFormer for panoptic maps with the pixel decoder of its ResNets: a transformer on the coarsest map, then an FPN.
_base_ = "./maskformer_panoptic.py"
model = dict(decode_head=dict(pixel_decoder=dict(type="mmseg_m2f.TransformerFPNPixelDecoder")))
