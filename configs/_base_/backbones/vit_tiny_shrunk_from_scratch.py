# Like `vit_tiny_from_scratch.py`, with patches of 8 pixels; the last two blocks see a quarter of the tokens, and edges.
normalization = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])
backbone = dict(
    type="mmseg_m2f.ShrunkVisionTransformer",
    patch_size=8,
    embed_dims=96,
    num_layers=4,
    num_heads=3,
    out_indices=(1, 3),
    shrink=dict(block=2, sampler="edge"),
)
