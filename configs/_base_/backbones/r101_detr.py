# ResNet-101, ImageNet weights; batch norm, stem and first stage frozen.
_base_ = "./r101.py"
backbone = dict(frozen_stages=1)
