# COCO 2017 panoptic with EoMT's recipe at twice the size: what is 640 pixels in the pipelines is 1280.
_base_ = "./coco_panoptic_640.py"

crop_size = (1280, 1280)
train_pipeline, test_pipeline = (
    [{key: crop_size if value == (640, 640) else value for key, value in step.items()} for step in steps]
    for steps in (_base_.train_pipeline, _base_.test_pipeline)
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
data_preprocessor = dict(pad_size_divisor=1280)  # to the square that the positions are learnt for
