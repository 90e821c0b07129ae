# SegViT (arXiv 2210.05844): a query per class, whose attention is its mask; the rest is the default of the classes.
model = dict(
    type="mmseg_m2f.MaskSegmentor",
    decode_head=dict(
        type="mmseg_m2f.MaskHead",
        pixel_decoder=None,
        query_decoder=dict(type="mmseg_m2f.AttentionToMaskDecoder"),
        criterion=dict(
            type="mmseg_m2f.MaskCriterion",
            assigner=dict(type="mmseg_m2f.FixedAssigner"),
            loss_cls=dict(type="mmseg_m2f.ClassLoss", loss_weight=1.0, no_object_weight=0.1),
            loss_mask=dict(type="mmseg_m2f.MaskFocalLoss", loss_weight=20.0),
            loss_dice=dict(type="mmseg_m2f.MaskDiceLoss", loss_weight=1.0),
            sampling=dict(type="mmseg_m2f.FullMaskSampling"),
        ),
    ),
)
