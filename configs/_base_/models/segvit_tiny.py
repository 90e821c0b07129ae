# A small SegViT that a CPU trains in minutes: 64 channels, 2 decoder layers for each map, no dropout.
_base_ = "./segvit.py"
model = dict(decode_head=dict(query_decoder=dict(channels=64, num_layers=2, dropout=0.0)))
