# Generated scenes of 160 x 160 pixels, for heads whose logits have stride 8.
_base_ = "shapes.py"

crop_size = (160, 160)
train_dataloader = dict(dataset=dict(image_size=crop_size))
val_dataloader = dict(dataset=dict(image_size=crop_size))
test_dataloader = val_dataloader
data_preprocessor = dict(size=crop_size)
