"""What changed since a checkpoint was written."""

import os
from unittest import mock

from mmengine.runner import Runner

from mmseg_m2f.engine.resume.run_state import describe_changes, describe_trained


def runner(work_dir: str, *, batch_size: int = 4, accumulation: int = 1) -> Runner:
    found = mock.MagicMock(spec=Runner, work_dir=work_dir)
    found.train_dataloader = mock.MagicMock(batch_size=batch_size)
    found.optim_wrapper = mock.MagicMock(_accumulative_counts=accumulation)
    return found


def state(**changes: object) -> dict:
    return dict(dict(work_dir=os.path.abspath("run"), processes=1, batch_size=4, accumulation=1), **changes)


def test_describe_changes__says_nothing_where_all_is_as_before():
    assert describe_changes(runner("run"), state()) == []


def test_describe_changes__another_folder():
    (said,) = describe_changes(runner("run"), state(work_dir="/elsewhere"))
    assert said.startswith(f"The run was in /elsewhere and goes on in {os.path.abspath('run')}.")


def test_describe_changes__other_processes_and_fewer_images():
    (said,) = describe_changes(runner("run"), state(processes=2))
    assert "Before: 2 processes x 4 images x 1 accumulated batches = 8 images a step; now: 1 " in said
    assert "--auto-scale-lr" in said


def test_describe_changes__accumulation_makes_up_for_processes():
    (said,) = describe_changes(runner("run", accumulation=2), state(processes=2))
    assert "as many images a step as before" in said


def test_describe_trained__names_what_was_frozen_and_freed():
    said = describe_trained(["a", "b", "c", "d", "e"], ["e", "f"])
    assert said == "4 parameters were frozen (a, b, c ...) and 1 parameters were set free (f)"
    assert describe_trained(["a"], ["a"]) == ""
