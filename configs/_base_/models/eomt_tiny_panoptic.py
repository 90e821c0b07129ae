# The small EoMT for panoptic maps, objects and labels at once.
_base_ = "./eomt_tiny.py"
model = dict(type="mmseg_m2f.MaskDetector", test_cfg=dict(panoptic=True, instance=True, semantic=True))
