# What mmseg's decoders with an auxiliary head share. A leaf passes channels and classes to both heads.
model = dict(
    type="mmseg.EncoderDecoder",
    decode_head=dict(
        in_index=3,
        channels=512,
        norm_cfg=dict(type="BN"),
        loss_decode=dict(type="mmseg.CrossEntropyLoss"),
    ),
    auxiliary_head=dict(
        type="mmseg.FCNHead",
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        norm_cfg=dict(type="BN"),
        loss_decode=dict(type="mmseg.CrossEntropyLoss", loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
