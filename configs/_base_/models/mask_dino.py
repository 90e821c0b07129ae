# What the models of Mask DINO share (arXiv 2206.02777), which are mask_dino_instance.py, mask_dino_panoptic.py and
# mask_dino_semantic.py. What is not written here is the default of the classes.
model = dict(
    decode_head=dict(
        type="mmseg_m2f.MaskHead",
        pixel_decoder=dict(
            type="mmseg_m2f.DeformablePixelDecoder",
            num_extra_levels=1,
            always_add_finest=True,
            feedforward_channels=2048,
        ),
        query_decoder=dict(
            type="mmseg_m2f.AnchorMaskDecoder",
            num_queries=300,
            denoising=dict(num_queries=100, label_noise=0.2, box_noise=0.4),
        ),
        criterion=dict(
            type="mmseg_m2f.MaskCriterion",
            assigner=dict(
                type="mmseg_m2f.HungarianAssigner",
                match_costs=[
                    dict(type="mmseg_m2f.ClassFocalCost", weight=4.0),
                    dict(type="mmseg_m2f.MaskBCECost", weight=5.0),
                    dict(type="mmseg_m2f.MaskDiceCost", weight=5.0),
                    dict(type="mmseg_m2f.BoxL1Cost", weight=5.0),
                    dict(type="mmseg_m2f.BoxGIoUCost", weight=2.0),
                ],
            ),
            loss_cls=dict(type="mmseg_m2f.ClassFocalLoss", loss_weight=4.0),
            loss_mask=dict(type="mmseg_m2f.MaskBCELoss", loss_weight=5.0),
            loss_dice=dict(type="mmseg_m2f.MaskDiceLoss", loss_weight=5.0),
            loss_bbox=dict(type="mmseg_m2f.BoxL1Loss", loss_weight=5.0),
            loss_iou=dict(type="mmseg_m2f.BoxGIoULoss", loss_weight=2.0),
            sampling=dict(type="mmseg_m2f.PointSampling", num_points=12544, oversample=3.0, importance=0.75),
        ),
    ),
)
