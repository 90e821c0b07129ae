# Mask2Former for panoptic maps, objects and labels at once; the leaf says which classes are things.
_base_ = "./mask2former.py"
model = dict(type="mmseg_m2f.MaskDetector", test_cfg=dict(panoptic=True, instance=True, semantic=True))
