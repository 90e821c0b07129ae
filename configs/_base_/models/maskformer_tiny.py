# A small MaskFormer that a CPU trains in minutes: 64 channels, 3 decoder layers, 20 queries.
_base_ = "./maskformer.py"
model = dict(
    decode_head=dict(
        pixel_decoder=dict(channels=64, norm_groups=8),
        query_decoder=dict(num_queries=20, channels=64, num_layers=3, num_heads=4, feedforward_channels=128),
    )
)
