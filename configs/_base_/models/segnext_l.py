# SegNeXt's head for MSCAN-L.
_base_ = "./segnext_b.py"
model = dict(decode_head=dict(channels=1024, ham_channels=1024))
