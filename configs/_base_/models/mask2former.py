# Mask2Former (arXiv 2112.01527) as published; what is not written here is the default of the classes.
model = dict(
    type="mmseg_m2f.MaskSegmentor",
    decode_head=dict(
        type="mmseg_m2f.MaskHead",
        pixel_decoder=dict(type="mmseg_m2f.DeformablePixelDecoder"),
        query_decoder=dict(type="mmseg_m2f.MaskedAttentionDecoder", num_queries=100),
        criterion=dict(
            type="mmseg_m2f.MaskCriterion",
            assigner=dict(
                type="mmseg_m2f.HungarianAssigner",
                match_costs=[
                    dict(type="mmseg_m2f.ClassCost", weight=2.0),
                    dict(type="mmseg_m2f.MaskBCECost", weight=5.0),
                    dict(type="mmseg_m2f.MaskDiceCost", weight=5.0),
                ],
            ),
            loss_cls=dict(type="mmseg_m2f.ClassLoss", loss_weight=2.0, no_object_weight=0.1),
            loss_mask=dict(type="mmseg_m2f.MaskBCELoss", loss_weight=5.0),
            loss_dice=dict(type="mmseg_m2f.MaskDiceLoss", loss_weight=5.0),
            sampling=dict(type="mmseg_m2f.PointSampling", num_points=12544, oversample=3.0, importance=0.75),
        ),
    ),
)
