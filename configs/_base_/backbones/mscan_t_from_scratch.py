# MSCAN-T from random weights.
_base_ = "./mscan_t.py"
backbone = dict(init_cfg=None)
