# DeepLabV3+ (arXiv 1802.02611) with mmseg's auxiliary head.
_base_ = "./per_pixel.py"
model = dict(decode_head=dict(type="mmseg.DepthwiseSeparableASPPHead", dilations=(1, 12, 24, 36), c1_channels=48))
