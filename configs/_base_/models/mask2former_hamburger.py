# Mask2Former with SegNeXt's context module as pixel decoder.
_base_ = "./mask2former.py"
model = dict(decode_head=dict(pixel_decoder=dict(type="mmseg_m2f.HamburgerPixelDecoder")))
