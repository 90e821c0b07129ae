# EoMT (arXiv 2503.19108): Mask2Former's losses and matching, queries inside the backbone's last blocks.
_base_ = "./mask2former.py"
model = dict(
    decode_head=dict(pixel_decoder=None, query_decoder=dict(type="mmseg_m2f.EncoderMaskDecoder", num_queries=100)),
)
