# The small Mask DINO for instances.
_base_ = "./mask_dino_tiny.py"
model = dict(
    type="mmseg_m2f.MaskDetector",
    decode_head=dict(query_decoder=dict(box_init="masks")),
    test_cfg=dict(panoptic=False, instance=True, things_first=False),
)
