# SegNeXt's head for MSCAN-B: wider, and 64 bases as its authors have; mmseg's own config keeps 16.
_base_ = "./segnext.py"
model = dict(decode_head=dict(channels=512, ham_channels=512, ham_kwargs=dict(MD_R=64)))
