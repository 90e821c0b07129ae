# OCRNet (arXiv 1909.11065) behind HRNet-W18: a head and one that refines its result. A leaf passes classes to both.
levels = dict(
    in_channels=[18, 36, 72, 144],
    in_index=(0, 1, 2, 3),
    input_transform="resize_concat",
    dropout_ratio=-1,
    norm_cfg=dict(type="BN"),
)
first_head = dict(
    type="mmseg.FCNHead",
    **levels,
    channels=270,
    kernel_size=1,
    num_convs=1,
    concat_input=False,
    loss_decode=dict(type="mmseg.CrossEntropyLoss", loss_weight=0.4),
)
second_head = dict(
    type="mmseg.OCRHead", **levels, channels=512, ocr_channels=256, loss_decode=dict(type="mmseg.CrossEntropyLoss")
)
model = dict(
    type="mmseg.CascadeEncoderDecoder",
    num_stages=2,
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
