# UPerNet (arXiv 1807.10221) with mmseg's auxiliary head.
_base_ = "./per_pixel.py"
model = dict(decode_head=dict(type="mmseg.UPerHead", in_index=[0, 1, 2, 3]))
