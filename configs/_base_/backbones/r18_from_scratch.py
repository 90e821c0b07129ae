# ResNet-18 from random weights, batch norm trained.
backbone = dict(type="mmseg.ResNet", depth=18, norm_cfg=dict(type="BN"))
