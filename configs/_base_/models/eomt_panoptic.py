# EoMT for panoptic maps, objects and labels at once; the leaf says which classes are things.
_base_ = "./eomt.py"
model = dict(
    type="mmseg_m2f.MaskDetector",
    decode_head=dict(query_decoder=dict(num_queries=200)),
    test_cfg=dict(panoptic=True, instance=True, semantic=True),
)
