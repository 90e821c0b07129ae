# MaskFormer for panoptic maps: a query keeps all pixels it wins, also those it is unsure of.
_base_ = "./maskformer.py"
model = dict(
    type="mmseg_m2f.MaskDetector",
    test_cfg=dict(panoptic=True, instance=True, semantic=True, keep_low_pixels=True),
)
