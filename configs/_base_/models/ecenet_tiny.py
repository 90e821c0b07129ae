# A small ECENet that a CPU trains in minutes: 64 channels.
_base_ = "./ecenet.py"
model = dict(decode_head=dict(channels=64))
