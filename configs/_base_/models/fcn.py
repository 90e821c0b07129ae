# FCN (arXiv 1411.4038) with mmseg's auxiliary head.
_base_ = "./per_pixel.py"
model = dict(decode_head=dict(type="mmseg.FCNHead"))
