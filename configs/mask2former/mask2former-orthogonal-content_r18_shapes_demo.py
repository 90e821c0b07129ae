# The demo with the learnt content of all queries kept apart, to see whether that helps.
_base_ = "./mask2former_r18_shapes_demo.py"
model = dict(decode_head=dict(content_loss=dict(type="mmseg_m2f.ContentOrthogonalityLoss", loss_weight=1.0)))
