# SegViT for shrunk transformers: learnt queries restore the fine grid. A leaf adds the crop size they are learnt for.
_base_ = "./segvit.py"
model = dict(decode_head=dict(query_decoder=dict(type="mmseg_m2f.QueryUpsamplingDecoder", cell_init="normal")))
