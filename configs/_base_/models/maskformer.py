# MaskFormer (arXiv 2107.06278) as published for semantic segmentation; the rest is the default of the classes.
model = dict(
    type="mmseg_m2f.MaskSegmentor",
    decode_head=dict(
        type="mmseg_m2f.MaskHead",
        pixel_decoder=dict(type="mmseg_m2f.FPNPixelDecoder"),
        query_decoder=dict(type="mmseg_m2f.CrossAttentionDecoder", num_queries=100),
        criterion=dict(
            type="mmseg_m2f.MaskCriterion",
            assigner=dict(
                type="mmseg_m2f.HungarianAssigner",
                match_costs=[
                    dict(type="mmseg_m2f.ClassCost", weight=1.0),
                    dict(type="mmseg_m2f.MaskFocalCost", weight=20.0),
                    dict(type="mmseg_m2f.MaskDiceCost", weight=1.0),
                ],
            ),
            loss_cls=dict(type="mmseg_m2f.ClassLoss", loss_weight=1.0, no_object_weight=0.1),
            loss_mask=dict(type="mmseg_m2f.MaskFocalLoss", loss_weight=20.0),
            loss_dice=dict(type="mmseg_m2f.MaskDiceLoss", loss_weight=1.0),
            sampling=dict(type="mmseg_m2f.FullMaskSampling"),
        ),
    ),
)
