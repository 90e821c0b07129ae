# The first task of a small continual SegViT: five of the eight classes of generated shapes, from random weights.
_base_ = [
    "../_base_/models/segvit_tiny_continual.py",
    "../_base_/backbones/vit_tiny_from_scratch.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/adamw_scratch_800.py",
    "../_base_/runtime.py",
]
tasks = _base_.tasks[:1]
model = dict(
    data_preprocessor=dict(_base_.data_preprocessor, **_base_.normalization),
    backbone=dict(_base_.backbone, img_size=_base_.crop_size),
    decode_head=dict(
        num_classes=_base_.num_classes, query_decoder=dict(tasks=tasks), criterion=dict(classes=tasks[-1])
    ),
)
# Where the other classes are, the model is not judged.
test_pipeline = [dict(type="mmseg_m2f.IgnoreLabels", labels=_base_.tasks[1]), *_base_.test_pipeline]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
