# The runtime of heads whose results are logits of one class per pixel: test-time augmentation averages probabilities.
_base_ = "./runtime.py"
tta_model = dict(type="mmseg.SegTTAModel")
