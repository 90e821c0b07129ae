# ResNet-50, ImageNet weights; batch norm, stem and first stage frozen.
_base_ = "./r50.py"
backbone = dict(frozen_stages=1)
