# SegFormer's head (arXiv 2105.15203), small: 64 channels. A leaf passes the channels of the four stages.
model = dict(
    type="mmseg.EncoderDecoder",
    decode_head=dict(
        type="mmseg.SegformerHead",
        in_index=[0, 1, 2, 3],
        channels=64,
        dropout_ratio=0.1,
        norm_cfg=dict(type="BN"),
        align_corners=False,
        loss_decode=dict(type="mmseg.CrossEntropyLoss"),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
