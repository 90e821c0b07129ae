# MaskFormer's recipe for ResNets (arXiv 2107.06278, section 4.2): weight decay 1e-4.
_base_ = "./adamw_160k.py"
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
