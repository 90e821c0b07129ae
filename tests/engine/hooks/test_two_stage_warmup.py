from unittest.mock import Mock

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmseg_m2f.engine.hooks import TwoStageWarmup

BACKBONE_LR, HEAD_LR = 0.5, 2.0


def runner_with(groups: list[dict] | None = None, **attributes: object) -> Mock:
    if groups is None:
        groups = [dict(lr=BACKBONE_LR, in_backbone=True), dict(lr=HEAD_LR)]
    optimizer = torch.optim.AdamW([dict(params=[torch.zeros(1, requires_grad=True)], **g) for g in groups])
    settings = dict(optim_wrapper=OptimWrapper(optimizer), param_schedulers=None, iter=0, max_iters=110) | attributes
    return Mock(spec=Runner, **settings)


def rates(runner: Mock, iteration: int) -> list[float]:
    runner.iter = iteration
    TwoStageWarmup(head_iters=10, backbone_iters=20).before_train_iter(runner, 0)
    return [group["lr"] for group in runner.optim_wrapper.optimizer.param_groups]


@pytest.mark.parametrize(
    ("iteration", "backbone", "head"),
    [
        (0, 0, 0),
        (5, 0, 0.5),
        (10, 0, 1),
        (20, 0.5, 0.9**0.9),
        (30, 1, 0.8**0.9),
        (60, 0.625**0.9, 0.5**0.9),  # 50 of 80, and of 100, are left
        (110, 0, 0),
    ],
)
def test_two_stage_warmup__by_hand(iteration, backbone, head):
    runner = runner_with()
    TwoStageWarmup(head_iters=10, backbone_iters=20).before_train(runner)
    assert rates(runner, iteration) == pytest.approx([BACKBONE_LR * backbone, HEAD_LR * head])


def test_two_stage_warmup__resumes_from_the_stored_optimizer():
    first, second = runner_with(), runner_with()
    hook = TwoStageWarmup(head_iters=10, backbone_iters=20)
    hook.before_train(first)
    rates(first, 15)
    second.optim_wrapper.optimizer.load_state_dict(first.optim_wrapper.optimizer.state_dict())
    hook.before_train(second)
    assert rates(second, 40) == rates(first, 40)


def test_two_stage_warmup__beside_another_scheduler():
    with pytest.raises(ValueError, match="Set param_scheduler=None"):
        TwoStageWarmup().before_train(runner_with(param_schedulers=[object()]))


def test_two_stage_warmup__groups_without_mark():
    with pytest.raises(ValueError, match="expected groups of parameters marked as the backbone's, got none"):
        TwoStageWarmup().before_train(runner_with([dict(lr=1.0)]))
