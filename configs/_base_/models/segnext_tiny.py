# A small SegNeXt head that a CPU trains in minutes: 64 channels.
_base_ = "./segnext.py"
model = dict(decode_head=dict(channels=64, ham_channels=64))
