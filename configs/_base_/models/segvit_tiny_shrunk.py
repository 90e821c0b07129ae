# The small SegViT for shrunk transformers that keep edges (SegViTv2, arXiv 2306.06289); a leaf adds the crop size.
_base_ = "./segvit_tiny.py"
model = dict(
    decode_head=dict(
        query_decoder=dict(type="mmseg_m2f.QueryUpsamplingDecoder"),
        extra_losses=[dict(type="mmseg_m2f.TokenEdgeLoss")],
    )
)
