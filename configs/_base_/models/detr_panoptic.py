# DETR with its mask head. As published, the head is trained alone, on top of a trained DETR given by `load_from`.
_base_ = "./detr.py"
model = dict(
    decode_head=dict(
        query_decoder=dict(mask_head=dict(type="mmseg_m2f.DetrMaskHead")),
        criterion=dict(
            loss_mask=dict(type="mmseg_m2f.MaskFocalLoss", loss_weight=1.0),
            loss_dice=dict(type="mmseg_m2f.MaskDiceLoss", loss_weight=1.0),
            sampling=dict(type="mmseg_m2f.FullMaskSampling"),
        ),
    ),
    test_cfg=dict(panoptic=True, panoptic_rule="detr", object_threshold=0.85),
    trainable=["decode_head.query_decoder.mask_head."],
)
