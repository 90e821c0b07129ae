"""Timing a config's own training."""

from pathlib import Path

import pytest

from mmseg_m2f.benchmark.pace import measure_training
from tests.benchmark.tiny import CONFIG

OPTIONS = {"train_dataloader.batch_size": 1, "train_dataloader.num_workers": 0}


@pytest.mark.slow
def test_measure_training__some_iterations_of_a_config(tmp_path: Path) -> None:
    pace = measure_training(CONFIG, OPTIONS, iterations=2, warm_up=1, amp=False, work_dir=tmp_path)
    assert (pace.iterations, pace.batch, pace.device) == (2, 1, "CPU")
    assert 0 < pace.waiting < 1
    assert pace.iterations_per_second > 0
    assert not list(tmp_path.rglob("*.pth"))


def test_measure_training__nothing_to_measure(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least 1 each, got 0 and 3"):
        measure_training(CONFIG, iterations=0, warm_up=3, amp=False, work_dir=tmp_path)


@pytest.mark.slow
def test_measure_training__a_training_that_is_too_short(tmp_path: Path) -> None:
    options = {**OPTIONS, "max_iters": 2, "val_dataloader.dataset.length": 1}
    with pytest.raises(ValueError, match="expected at least 30 iterations, got a training of 2"):
        measure_training(CONFIG, options, iterations=10, warm_up=20, amp=False, work_dir=tmp_path)
