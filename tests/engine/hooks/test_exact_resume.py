"""When a validation is made up. That resumed runs are exact: tests/e2e/test_exact_resume.py."""

from unittest import mock

import pytest
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from mmseg_m2f.engine.hooks.exact_resume import validation_is_due


def runner(kind: type, *, iteration: int, epoch: int = 0, validated: int | None = None) -> Runner:
    loop = mock.MagicMock(spec=kind, val_begin=1, val_interval=2)
    found = mock.MagicMock(spec=Runner, train_loop=loop, iter=iteration, epoch=epoch, max_iters=7, max_epochs=3)
    found.train_dataloader = [None] * 5
    found.val_loop = object()
    found.message_hub = mock.MagicMock(runtime_info={} if validated is None else {"last_validated_iter": validated})
    return found


@pytest.mark.parametrize(
    ("iteration", "validated", "due"), [(2, None, True), (3, None, False), (7, None, True), (2, 2, False), (4, 2, True)]
)
def test_validation_is_due__counting_iterations(iteration, validated, due):
    assert validation_is_due(runner(IterBasedTrainLoop, iteration=iteration, validated=validated)) is due


@pytest.mark.parametrize(("iteration", "epoch", "due"), [(10, 2, True), (9, 1, False), (5, 1, False), (15, 3, True)])
def test_validation_is_due__counting_epochs(iteration, epoch, due):
    assert validation_is_due(runner(EpochBasedTrainLoop, iteration=iteration, epoch=epoch)) is due
