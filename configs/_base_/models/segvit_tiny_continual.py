# The small SegViT that learns task after task; the last of `tasks` is trained. A leaf freezes the backbone.
_base_ = "./segvit_tiny.py"
tasks = [[0, 1, 2, 3, 4], [5, 6, 7]]
model = dict(
    decode_head=dict(
        query_decoder=dict(
            _delete_=True,
            type="mmseg_m2f.ContinualDecoder",
            tasks=tasks,
            branch=_base_.model.decode_head.query_decoder,
        ),
        criterion=dict(
            _delete_=True,
            type="mmseg_m2f.TaskCriterion",
            classes=tasks[-1],
            criterion=_base_.model.decode_head.criterion,
        ),
    )
)
