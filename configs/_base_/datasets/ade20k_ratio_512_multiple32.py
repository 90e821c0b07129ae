# ADE20K as in ade20k_ratio_512, tested at sides that are resized, not padded, to multiples of 32.
_base_ = "ade20k_ratio_512.py"

test_pipeline = [
    _base_.load_image,
    dict(type="mmengine.Resize", scale=(2048, 512), keep_ratio=True),
    dict(type="mmseg.ResizeToMultiple", size_divisor=32),
    _base_.load_labels,  # after resizing: labels keep their original size
    *_base_.pack,
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
