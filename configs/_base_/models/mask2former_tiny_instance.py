# The small Mask2Former for instances, with enough queries for crowded images.
_base_ = "./mask2former_tiny.py"
model = dict(
    type="mmseg_m2f.MaskDetector",
    decode_head=dict(query_decoder=dict(num_queries=200)),
    test_cfg=dict(panoptic=False, instance=True, max_per_image=200),
)
