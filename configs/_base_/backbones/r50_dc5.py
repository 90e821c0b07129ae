# ResNet-50 whose last stage is dilated instead of reduced ("DC5"): the coarsest map has stride 16.
_base_ = "./r50_detr.py"
backbone = dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), contract_dilation=True)
