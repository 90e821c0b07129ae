# Semantic FPN (arXiv 1901.02446) of mmseg. A leaf passes the backbone's channels to the neck.
model = dict(
    type="mmseg.EncoderDecoder",
    neck=dict(type="mmseg.FPN", out_channels=256, num_outs=4),
    decode_head=dict(
        type="mmseg.FPNHead",
        in_channels=[256, 256, 256, 256],
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=128,
        dropout_ratio=0.1,
        norm_cfg=dict(type="BN"),
        align_corners=False,
        loss_decode=dict(type="mmseg.CrossEntropyLoss", loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
