# A small UPerNet that a CPU trains in minutes: 64 channels.
_base_ = "./upernet.py"
model = dict(decode_head=dict(channels=64), auxiliary_head=dict(channels=32))
