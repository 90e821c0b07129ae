# ECENet (arXiv 2308.12894). A leaf passes channels and classes.
model = dict(
    type="mmseg.EncoderDecoder",
    decode_head=dict(type="mmseg_m2f.ExplicitClassHead"),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
