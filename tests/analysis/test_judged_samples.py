from pathlib import Path

import pytest

from mmseg_m2f.analysis.judged_samples import TASKS, task_of, visit_test_set
from tests.analysis.leaves import LEAVES, OPTIONS


@pytest.mark.parametrize("task", LEAVES)
def test_task_of__is_that_of_the_first_metric_or_the_one_chosen(task: str) -> None:
    assert task_of(LEAVES[task]) == task
    assert task_of(LEAVES[task], task="semantic") == "semantic"
    assert set(LEAVES) == set(TASKS)


def test_task_of__asks_where_no_metric_is_known() -> None:
    metric = {"test_evaluator": dict(type="mmseg.IoUMetric")}
    with pytest.raises(ValueError, match=r"Give --task semantic\|instance\|panoptic"):
        task_of(LEAVES["semantic"], metric)


def test_visit_test_set__refuses_a_missing_checkpoint(tmp_path: Path) -> None:
    def visit(*_: object) -> None:
        raise AssertionError

    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        visit_test_set(
            *(LEAVES["semantic"], str(tmp_path / "none.pth"), OPTIONS),
            task="semantic",
            visit=visit,
            work_dir=str(tmp_path),
        )
