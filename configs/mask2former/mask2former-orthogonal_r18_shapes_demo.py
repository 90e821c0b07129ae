# The demo with mask embeddings of matched queries kept apart, to see whether that helps.
_base_ = "./mask2former_r18_shapes_demo.py"
model = dict(
    decode_head=dict(
        criterion=dict(
            loss_orthogonality=dict(type="mmseg_m2f.QueryOrthogonalityLoss", loss_weight=1.0, target="matched")
        )
    )
)
