"""Checkpoints are written before others are deleted, and never with numbers that are not finite."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmseg_m2f.checkpoints.checking import check_checkpoint
from mmseg_m2f.engine.launch import train
from tests.tiny_segmentation import tiny_config, write_config, write_dataset


@HOOKS.register_module()
class SpoilWeight(Hook):
    """Puts a NaN into a weight, or into the moving averages, after so many iterations."""

    def __init__(self, iteration: int, *, of_average: bool = False) -> None:
        self.iteration = iteration
        self.of_average = of_average

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if runner.iter + 1 == self.iteration:
            averages = [hook.ema_model for hook in runner.hooks if hasattr(hook, "ema_model")]
            model = averages[0] if self.of_average else runner.model
            next(model.parameters()).data.flatten()[0] = float("nan")


@HOOKS.register_module()
class StopWhileValidating(Hook):
    """Stands for a kill in the validation of an iteration."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_val_epoch(self, runner: Runner) -> None:
        if runner.iter == self.iteration:
            raise KeyboardInterrupt


@pytest.fixture
def config(tmp_path: Path) -> str:
    write_dataset(tmp_path / "data", count=2)
    cfg = tiny_config(tmp_path / "data", max_iters=6)
    cfg.train_cfg.val_interval = 2
    cfg.default_hooks.checkpoint.update(max_keep_ckpts=1, save_best="mIoU", rule="greater")
    cfg.report = False
    return write_config(cfg, tmp_path / "checkpoints.py")


def improving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each validation be better than the one before."""
    from mmseg_m2f.evaluation import SemanticIoU

    scores = iter(range(1, 100))
    monkeypatch.setattr(SemanticIoU, "compute_metrics", lambda *_: {"mIoU": next(scores) / 100})


def test_save__writes_before_it_deletes(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    improving(monkeypatch)
    run, seen = tmp_path / "run", []
    unlink = os.remove

    def watched(path: str, **keywords: object) -> None:
        if str(path).endswith(".pth"):
            seen.append((Path(path).name, sorted(p.name for p in run.glob("*.pth"))))
        unlink(path, **keywords)

    monkeypatch.setattr(os, "remove", watched)
    train(config, {"max_iters": 4}, work_dir=str(run))
    assert sorted(path.name for path in run.glob("*.pth")) == ["best_mIoU_iter_4.pth", "iter_4.pth"]
    logged = "".join(path.read_text() for path in run.rglob("*.log"))
    assert "mIoU: " in logged
    assert "validated_iter" not in logged  # what begins with "val" is taken for a metric
    assert ("iter_3.pth", ["best_mIoU_iter_3.pth", "iter_3.pth", "iter_4.pth"]) in seen  # the interval shrinks with it
    assert ("best_mIoU_iter_3.pth", ["best_mIoU_iter_3.pth", "best_mIoU_iter_4.pth", "iter_4.pth"]) in seen
    assert (run / "last_checkpoint").read_text() == str(run / "iter_4.pth")


@pytest.mark.parametrize("of_average", [False, True])
def test_save__refuses_numbers_that_are_not_finite(config: str, tmp_path: Path, of_average: bool) -> None:
    hooks = [dict(type="SpoilWeight", iteration=4, of_average=of_average)]
    hooks += [dict(type="mmengine.EMAHook", priority="HIGH")] if of_average else []
    with pytest.raises(ValueError, match=r"Iteration 3: 1 weights hold NaN .*conv1.weight.*those in .*run stay"):
        train(config, {"custom_hooks": hooks}, work_dir=str(tmp_path / "run"))
    stored = check_checkpoint(tmp_path / "run/iter_2.pth")["state_dict"]
    assert all(torch.isfinite(value).all() for value in stored.values())
    assert not (tmp_path / "run/iter_4.pth").exists()


def test_before_train__finds_the_best_in_a_folder_that_was_moved(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    improving(monkeypatch)
    first, second = tmp_path / "first", tmp_path / "second"
    train(config, {"max_iters": 2}, work_dir=str(first))
    shutil.copytree(first, second)
    (second / "iter_1.pth").write_bytes(b"left over")  # by a kill between writing and deleting
    options = {"max_iters": 4, "train_cfg.val_interval": 4}
    with pytest.warns(UserWarning, match=rf"The run was in {first} and goes on in {second}"):
        train(config, options, work_dir=str(second), resume=True)
    assert (first / "best_mIoU_iter_2.pth").exists()
    assert not (second / "best_mIoU_iter_2.pth").exists()
    assert (second / "best_mIoU_iter_4.pth").exists()


def test_before_train__deletes_what_a_killed_run_had_left(config: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(config, {"max_iters": 4, "val_cfg": None, "val_dataloader": None, "val_evaluator": None}, work_dir=str(run))
    shutil.copy(run / "iter_4.pth", run / "iter_3.pth")
    options = {"max_iters": 4, "val_cfg": None, "val_dataloader": None, "val_evaluator": None}
    train(config, options, work_dir=str(run), resume=True)
    assert [path.name for path in run.glob("*.pth")] == ["iter_4.pth"]


def test_resume__makes_up_a_lost_validation(config: str, tmp_path: Path) -> None:
    stop = [dict(type="StopWhileValidating", iteration=2)]
    with pytest.raises(KeyboardInterrupt):
        train(config, {"custom_hooks": stop}, work_dir=str(tmp_path / "run"))
    runner = train(config, {"max_iters": 3}, work_dir=str(tmp_path / "run"), resume=True)
    scalars = runner.message_hub.log_scalars["val/mIoU"].data[0]
    assert len(scalars) == 2  # after 2 and after 3
    assert list(tmp_path.glob("run/best_mIoU_iter_*.pth"))
