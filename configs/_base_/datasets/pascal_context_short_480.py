# PASCAL-Context tested at short side 520, so that every image covers a window of 480 pixels.
_base_ = "pascal_context_480.py"

test_pipeline = [
    _base_.load_image,
    dict(type="mmseg.ResizeShortestEdge", scale=520, max_size=2080),
    _base_.load_labels,  # after resizing: labels keep their original size
    *_base_.pack,
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
