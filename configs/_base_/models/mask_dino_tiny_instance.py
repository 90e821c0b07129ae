# The small Mask DINO for instances, 128 channels wide. Box losses weigh three times as much, and boxes start around
# parts of masks.
_base_ = "./mask_dino_tiny.py"
model = dict(
    type="mmseg_m2f.MaskDetector",
    decode_head=dict(
        pixel_decoder=dict(channels=128, feedforward_channels=256),
        query_decoder=dict(
            box_init="centred_masks",
            proposal_sizes="finest_smallest",
            num_heads=8,
            feedforward_channels=512,
        ),
        criterion=dict(loss_bbox=dict(loss_weight=15.0), loss_iou=dict(loss_weight=6.0)),
    ),
    test_cfg=dict(panoptic=False, instance=True, things_first=False),
)
