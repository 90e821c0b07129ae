# SegNeXt's head (arXiv 2209.08575) for MSCAN-T and -S. A leaf passes the channels of the last three stages.
model = dict(
    type="mmseg.EncoderDecoder",
    decode_head=dict(
        type="mmseg_m2f.SegNeXtHead",
        in_index=[1, 2, 3],
        channels=256,
        ham_channels=256,
        ham_kwargs=dict(MD_R=16, train_steps=6, eval_steps=7),  # bases, steps of the factorisation
        dropout_ratio=0.1,
        norm_cfg=dict(type="GN", num_groups=32),
        align_corners=False,
        loss_decode=dict(type="mmseg.CrossEntropyLoss", loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
