# A small Semantic FPN that a CPU trains in minutes: 64 channels.
_base_ = "./semantic_fpn.py"
model = dict(
    neck=dict(out_channels=64),
    decode_head=dict(in_channels=[64, 64, 64, 64], channels=64),
)
