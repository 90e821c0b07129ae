# EoMT with 20 queries and 1024 points, for small vision transformers that a CPU trains in minutes.
_base_ = "./eomt.py"
model = dict(
    decode_head=dict(query_decoder=dict(num_queries=20), criterion=dict(sampling=dict(num_points=1024))),
)
