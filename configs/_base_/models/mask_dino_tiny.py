# What the small Mask DINOs share, which a CPU trains in minutes: 64 channels, 3 decoder layers, 1024 points.
_base_ = "./mask_dino.py"
model = dict(
    decode_head=dict(
        pixel_decoder=dict(channels=64, num_layers=2, num_heads=4, feedforward_channels=128, norm_groups=8),
        query_decoder=dict(
            num_queries=40,
            num_layers=3,
            num_heads=4,
            feedforward_channels=128,
            denoising=dict(num_queries=40),
        ),
        criterion=dict(sampling=dict(num_points=1024)),
    )
)
