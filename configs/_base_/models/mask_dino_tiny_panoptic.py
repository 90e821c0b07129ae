# The small Mask DINO for panoptic maps, objects and labels at once. Boxes start around parts of masks.
_base_ = "./mask_dino_tiny.py"
model = dict(
    type="mmseg_m2f.MaskDetector",
    decode_head=dict(query_decoder=dict(box_init="centred_masks", proposal_sizes="finest_smallest")),
    test_cfg=dict(panoptic=True, instance=True, semantic=True, object_threshold=0.25, things_first=False),
)
