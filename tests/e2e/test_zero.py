"""DeepSpeed on two processes: the losses of DDP, checkpoints as of one process, and resuming in every bit."""

import json
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from mmseg_m2f.checkpoints.checking import check_checkpoint
from mmseg_m2f.engine.launch import evaluate, train
from mmseg_m2f.inference import Predictor
from tests.e2e.forked_runs import log, losses, run_in_children, tensors, train_in_children, validating_config
from tests.tiny_segmentation import write_config

pytest.importorskip("deepspeed", reason="the extra `deepspeed` is not part of the development tools")
pytestmark = pytest.mark.e2e

STAGES = (1, 2)


class Runs(NamedTuple):
    """A config, and the folder of its runs with DDP (`ddp`) and DeepSpeed (`zero1`, `zero2`)."""

    config: str
    folder: Path


def zero(stage: int) -> dict[str, object]:
    return {"strategy": dict(type="DeepSpeedStrategy", zero_optimization=dict(stage=stage))}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("zero")
    cfg = validating_config(folder)
    cfg.optim_wrapper.constructor = "mmseg_m2f.ParameterRule"  # groups with their own rates and decays
    config = write_config(cfg, folder / "zero.py")
    for name, options in (("ddp", {}), *((f"zero{stage}", zero(stage)) for stage in STAGES)):
        assert train_in_children(config, folder / name, options, processes=2) == 0, log(folder / name)
    return Runs(config, folder)


@pytest.mark.parametrize("stage", STAGES)
def test_zero__gives_the_losses_and_norms_of_ddp(runs: Runs, stage: int) -> None:
    spread, replicated = runs.folder / f"zero{stage}/iter_8.pth", runs.folder / "ddp/iter_8.pth"
    assert len(losses(spread)) == 8
    torch.testing.assert_close(losses(spread), losses(replicated), rtol=1e-5, atol=0)
    norms = [
        torch.tensor(check_checkpoint(path)["message_hub"]["log_scalars"]["train/grad_norm"].data[0])
        for path in (spread, replicated)
    ]
    torch.testing.assert_close(*norms, rtol=1e-4, atol=0)


@pytest.mark.parametrize("stage", STAGES)
def test_zero__writes_the_checkpoints_of_ddp(runs: Runs, stage: int) -> None:
    spread, replicated = runs.folder / f"zero{stage}/iter_8.pth", runs.folder / "ddp/iter_8.pth"
    assert sorted(path.name for path in spread.parent.glob("*.pth")) == ["iter_4.pth", "iter_8.pth"]
    groups = [check_checkpoint(path)["optimizer"]["param_groups"] for path in (spread, replicated)]
    assert groups[0] == groups[1]
    assert len(groups[0]) > 1
    found, expected = tensors(spread), tensors(replicated)
    assert {value.untyped_storage().nbytes() - value.nbytes for value in found.values()} == {0}
    assert {name: value.shape for name, value in found.items()} == {n: v.shape for n, v in expected.items()}
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("stage", STAGES)
def test_zero__resumes_bit_by_bit(runs: Runs, tmp_path: Path, stage: int) -> None:
    killed = dict(zero(stage), custom_hooks=[dict(type="KillAfter", iterations=6)])
    assert train_in_children(runs.config, tmp_path, killed, processes=2) == -9, log(tmp_path)
    assert train_in_children(runs.config, tmp_path, zero(stage), processes=2, resume=True) == 0, log(tmp_path)
    straight, resumed = tensors(runs.folder / f"zero{stage}/iter_8.pth"), tensors(tmp_path / "iter_8.pth")
    assert [name for name, value in straight.items() if not torch.equal(value, resumed[name])] == []


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("amp", [False, True])
def test_zero__accumulates_and_resumes_in_the_middle_of_a_step(
    runs: Runs, tmp_path: Path, stage: int, amp: bool
) -> None:
    options = dict(zero(stage), **{"optim_wrapper.accumulative_counts": 3})
    options["custom_hooks"] = [dict(type="mmengine.EMAHook")]
    assert train_in_children(runs.config, tmp_path / "straight", options, processes=2, amp=amp) == 0
    replicated = {name: value for name, value in options.items() if name != "strategy"}
    assert train_in_children(runs.config, tmp_path / "ddp", replicated, processes=2, amp=amp) == 0
    killed = dict(options, custom_hooks=[*options["custom_hooks"], dict(type="KillAfter", iterations=4)])
    assert train_in_children(runs.config, tmp_path / "broken", killed, processes=2, amp=amp) == -9
    assert train_in_children(runs.config, tmp_path / "broken", options, processes=2, amp=amp, resume=True) == 0
    straight, resumed = tensors(tmp_path / "straight/iter_8.pth"), tensors(tmp_path / "broken/iter_8.pth")
    assert any(name.startswith("ema_state_dict") for name in straight)
    assert [name for name, value in straight.items() if not torch.equal(value, resumed[name])] == []
    expected = losses(tmp_path / "ddp/iter_8.pth")
    torch.testing.assert_close(losses(tmp_path / "straight/iter_8.pth"), expected, rtol=2e-2 if amp else 1e-5, atol=0)


def test_zero__goes_on_without_deepspeed(runs: Runs, tmp_path: Path) -> None:
    """One process takes the states of two, and warns that it is not bit-exact."""

    def go_on() -> None:
        warnings.simplefilter("ignore")
        train(runs.config, work_dir=str(tmp_path), resume=str(runs.folder / "zero2/iter_4.pth"))

    assert run_in_children(go_on, tmp_path, processes=1) == 0, (tmp_path / "rank0.log").read_text()[-3000:]
    states = [value["step"] for value in check_checkpoint(tmp_path / "iter_8.pth")["optimizer"]["state"].values()]
    assert {float(step) for step in states} == {8}


def test_zero__checkpoint_loads_in_one_process(runs: Runs, tmp_path: Path) -> None:
    checkpoint = str(runs.folder / "zero1/iter_8.pth")
    alone = evaluate(runs.config, checkpoint, zero(1), work_dir=str(tmp_path))
    replicated = evaluate(runs.config, str(runs.folder / "ddp/iter_8.pth"), work_dir=str(tmp_path))
    assert alone["mIoU"] == pytest.approx(replicated["mIoU"], abs=0.02)
    image = str(runs.folder / "data/images/000.png")
    written = runs.folder / "zero1/zero.py"  # names the strategy
    labels = [
        Predictor(str(config), str(path))(image).semantic
        for config, path in ((written, checkpoint), (runs.config, runs.folder / "ddp/iter_8.pth"))
    ]
    assert labels[0].shape == (32, 48)
    assert np.mean(labels[0] == labels[1]) > 0.99


def test_zero__tests_on_two_processes_as_on_one(runs: Runs, tmp_path: Path) -> None:
    checkpoint = str(runs.folder / "zero2/iter_8.pth")

    def evaluate_spread() -> None:
        options = dict(work_dir=str(tmp_path), out=str(tmp_path / "two"), launcher="pytorch")
        evaluate(runs.config, checkpoint, zero(2), **options)

    assert run_in_children(evaluate_spread, tmp_path, processes=2) == 0, log(tmp_path)
    alone = evaluate(runs.config, checkpoint, work_dir=str(tmp_path), out=str(tmp_path / "one"))
    assert json.loads((tmp_path / "two/metrics.json").read_text()) == alone
    assert len(list((tmp_path / "two/labels").glob("*.png"))) == 5


@pytest.mark.parametrize("stage", STAGES)
def test_zero__names_a_loss_that_is_not_finite(runs: Runs, tmp_path: Path, stage: int) -> None:
    planted = dict(zero(stage), custom_hooks=[dict(type="SpoilImages", iterations=2)])
    assert train_in_children(runs.config, tmp_path, planted, processes=2) == 1
    (stored,) = tmp_path.glob("non_finite_iter_2_rank*.pth")
    message = check_checkpoint(stored)["message"]
    assert stored.stem.endswith("rank1")
    assert "Iteration 2: the loss is not finite (nan)" in message
    assert "First layer whose output is not finite: backbone.conv1 (Conv2d, float32)" in message


@pytest.mark.parametrize("stage", STAGES)
def test_zero__leaves_out_a_step_that_is_not_finite(runs: Runs, tmp_path: Path, stage: int) -> None:
    hooks = [dict(type="SpoilImages", iterations=2), dict(type="mmseg_m2f.NonFiniteGuard", policy="skip")]
    options = dict(zero(stage), custom_hooks=hooks)
    assert train_in_children(runs.config, tmp_path, options, processes=2) == 0, log(tmp_path)
    states = check_checkpoint(tmp_path / "iter_8.pth")["optimizer"]["state"]
    assert {float(state["step"]) for state in states.values()} == {7}
