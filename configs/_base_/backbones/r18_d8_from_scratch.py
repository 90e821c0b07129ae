# ResNet-18 with stride 8 from random weights, batch norm trained.
_base_ = "./r18_from_scratch.py"
backbone = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
