# Mask2Former for instances; the leaf says which classes are things.
_base_ = "./mask2former.py"
model = dict(type="mmseg_m2f.MaskDetector", test_cfg=dict(panoptic=False, instance=True))
