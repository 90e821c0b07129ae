# EoMT for instances; the leaf says which classes are things.
_base_ = "./eomt_panoptic.py"
model = dict(test_cfg=dict(panoptic=False, instance=True, semantic=False))
