# Mask DINO for panoptic maps, objects and labels at once: queries start at the boxes that their cells predict.
_base_ = "./mask_dino.py"
model = dict(
    type="mmseg_m2f.MaskDetector",
    decode_head=dict(query_decoder=dict(box_init="encoder")),
    test_cfg=dict(panoptic=True, instance=True, semantic=True, object_threshold=0.25, things_first=False),
)
