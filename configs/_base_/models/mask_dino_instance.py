# Mask DINO for instances: queries start at the boxes around the masks of their cells.
_base_ = "./mask_dino.py"
model = dict(
    type="mmseg_m2f.MaskDetector",
    decode_head=dict(query_decoder=dict(box_init="masks")),
    test_cfg=dict(panoptic=False, instance=True, things_first=False),
)
