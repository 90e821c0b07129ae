# DETR (arXiv 2005.12872) as published; what is not written here is the default of the classes.
model = dict(
    type="mmseg_m2f.MaskDetector",
    decode_head=dict(
        type="mmseg_m2f.MaskHead",
        pixel_decoder=dict(type="mmseg_m2f.DetrPixelDecoder"),
        query_decoder=dict(type="mmseg_m2f.BoxDecoder", num_queries=100),
        criterion=dict(
            type="mmseg_m2f.MaskCriterion",
            assigner=dict(
                type="mmseg_m2f.HungarianAssigner",
                match_costs=[
                    dict(type="mmseg_m2f.ClassCost", weight=1.0),
                    dict(type="mmseg_m2f.BoxL1Cost", weight=5.0),
                    dict(type="mmseg_m2f.BoxGIoUCost", weight=2.0),
                ],
            ),
            loss_cls=dict(type="mmseg_m2f.ClassLoss", loss_weight=1.0, no_object_weight=0.1),
            loss_bbox=dict(type="mmseg_m2f.BoxL1Loss", loss_weight=5.0),
            loss_iou=dict(type="mmseg_m2f.BoxGIoULoss", loss_weight=2.0),
        ),
    ),
    test_cfg=dict(panoptic=False, instance=True),
)
