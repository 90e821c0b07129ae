# A small DETR with masks, boxes and masks trained together: 128 channels, 2 + 3 layers, 20 queries.
_base_ = "./detr_panoptic.py"
small = dict(num_layers=2, num_heads=4, feedforward_channels=256, dropout=0.0)
model = dict(
    decode_head=dict(
        pixel_decoder=dict(small, channels=128),
        query_decoder=dict(small, num_queries=20, num_layers=3),
    ),
    trainable=None,
)
