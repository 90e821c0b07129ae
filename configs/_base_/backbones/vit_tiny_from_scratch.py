# A vision transformer of 4 layers and 96 channels from random weights, patches of 4 pixels; two maps of stride 4.
normalization = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])
backbone = dict(
    type="mmseg.VisionTransformer",
    patch_size=4,
    embed_dims=96,
    num_layers=4,
    num_heads=3,
    out_indices=(1, 3),
    patch_bias=True,
    with_cls_token=False,
)
