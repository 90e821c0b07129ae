"""FSDP on two processes: the losses of DDP, checkpoints as of one process, and resuming in every bit."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from mmseg_m2f.checkpoints.checking import check_checkpoint
from mmseg_m2f.engine.launch import evaluate
from mmseg_m2f.inference import Predictor
from mmseg_m2f.inference.folder import predict_folder
from tests.e2e.forked_runs import log, losses, run_in_children, tensors, train_in_children, validating_config
from tests.tiny_segmentation import write_config

pytestmark = pytest.mark.e2e

FSDP = {
    "strategy": dict(
        type="FSDPStrategy",
        model_wrapper=dict(
            type="MMFullyShardedDataParallel",
            auto_wrap_policy=dict(type="size_based_auto_wrap_policy", min_num_params=1000),
        ),
    )
}


class Runs(NamedTuple):
    """A config, and the folder of its runs with DDP (`ddp`) and FSDP (`fsdp`)."""

    config: str
    folder: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("sharded")
    cfg = validating_config(folder)
    config = write_config(cfg, folder / "sharded.py")
    for name, options in (("ddp", {}), ("fsdp", FSDP)):
        assert train_in_children(config, folder / name, options, processes=2) == 0, log(folder / name)
    return Runs(config, folder)


def test_fsdp__gives_the_losses_of_ddp(runs: Runs) -> None:
    sharded, replicated = losses(runs.folder / "fsdp/iter_8.pth"), losses(runs.folder / "ddp/iter_8.pth")
    assert len(sharded) == 8
    torch.testing.assert_close(sharded, replicated, rtol=1e-5, atol=0)


def test_fsdp__writes_the_checkpoints_of_ddp(runs: Runs) -> None:
    sharded, replicated = tensors(runs.folder / "fsdp/iter_8.pth"), tensors(runs.folder / "ddp/iter_8.pth")
    assert {name: value.shape for name, value in sharded.items()} == {n: v.shape for n, v in replicated.items()}
    for name, value in sharded.items():
        torch.testing.assert_close(value, replicated[name], rtol=1e-3, atol=1e-4, msg=name)


def test_fsdp__resumes_bit_by_bit(runs: Runs, tmp_path: Path) -> None:
    killed = dict(FSDP, custom_hooks=[dict(type="KillAfter", iterations=6)])
    assert train_in_children(runs.config, tmp_path, killed, processes=2) == -9, log(tmp_path)
    assert train_in_children(runs.config, tmp_path, FSDP, processes=2, resume=True) == 0, log(tmp_path)
    straight, resumed = tensors(runs.folder / "fsdp/iter_8.pth"), tensors(tmp_path / "iter_8.pth")
    assert [name for name, value in straight.items() if not torch.equal(value, resumed[name])] == []


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("amp", [False, True])
def test_fsdp__accumulates_and_resumes_in_the_middle_of_a_step(runs: Runs, tmp_path: Path, amp: bool) -> None:
    options = dict(FSDP, **{"optim_wrapper.accumulative_counts": 3, "default_hooks.checkpoint.interval": 4})
    assert train_in_children(runs.config, tmp_path / "straight", options, processes=2, amp=amp) == 0
    replicated = {name: value for name, value in options.items() if name != "strategy"}
    assert train_in_children(runs.config, tmp_path / "ddp", replicated, processes=2, amp=amp) == 0
    killed = dict(options, custom_hooks=[dict(type="KillAfter", iterations=4)])
    assert train_in_children(runs.config, tmp_path / "broken", killed, processes=2, amp=amp) == -9
    assert train_in_children(runs.config, tmp_path / "broken", options, processes=2, amp=amp, resume=True) == 0
    straight, resumed = tensors(tmp_path / "straight/iter_8.pth"), tensors(tmp_path / "broken/iter_8.pth")
    assert [name for name, value in straight.items() if not torch.equal(value, resumed[name])] == []
    expected = losses(tmp_path / "ddp/iter_8.pth")
    torch.testing.assert_close(losses(tmp_path / "straight/iter_8.pth"), expected, rtol=2e-2 if amp else 1e-5, atol=0)


def test_fsdp__checkpoint_loads_in_one_process(runs: Runs, tmp_path: Path) -> None:
    checkpoint = str(runs.folder / "fsdp/iter_8.pth")
    alone = evaluate(runs.config, checkpoint, dict(FSDP), work_dir=str(tmp_path))
    replicated = evaluate(runs.config, str(runs.folder / "ddp/iter_8.pth"), work_dir=str(tmp_path))
    assert alone["mIoU"] == pytest.approx(replicated["mIoU"], abs=0.02)
    image = runs.folder / "data/images/000.png"
    written = runs.folder / "fsdp/sharded.py"  # names the strategy
    predictor = Predictor(str(written), checkpoint)
    predicted = predictor(str(image))
    assert predicted.semantic.shape == (32, 48)
    assert predict_folder(predictor, image, tmp_path / "out") == []
    (labels,) = (tmp_path / "out/labels").glob("*.png")
    assert np.array_equal(np.asarray(Image.open(labels)), predicted.semantic)


def test_fsdp__tests_on_two_processes_as_on_one(runs: Runs, tmp_path: Path) -> None:
    checkpoint = str(runs.folder / "fsdp/iter_8.pth")

    def evaluate_sharded() -> None:
        options = dict(work_dir=str(tmp_path), out=str(tmp_path / "two"), launcher="pytorch")
        evaluate(runs.config, checkpoint, dict(FSDP), **options)

    assert run_in_children(evaluate_sharded, tmp_path, processes=2) == 0, log(tmp_path)
    alone = evaluate(runs.config, checkpoint, work_dir=str(tmp_path), out=str(tmp_path / "one"))
    assert json.loads((tmp_path / "two/metrics.json").read_text()) == alone
    maps = [sorted((tmp_path / run / "labels").glob("*.png")) for run in ("one", "two")]
    assert [path.name for path in maps[1]] == [path.name for path in maps[0]]
    assert len(maps[1]) == 5
    assert all(one.read_bytes() == two.read_bytes() for one, two in zip(*maps, strict=True))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_fsdp__shares_the_statistics_of_batch_norms(runs: Runs, tmp_path: Path) -> None:
    shared = {"sync_bn": "mmcv", "max_iters": 2, "val_cfg": None}
    shared |= {"val_dataloader": None, "val_evaluator": None}
    for name, options in (("ddp", {}), ("fsdp", FSDP)):
        assert train_in_children(runs.config, tmp_path / name, {**shared, **options}, processes=2) == 0, log(
            tmp_path / name
        )
    expected = losses(tmp_path / "ddp/iter_2.pth")
    torch.testing.assert_close(losses(tmp_path / "fsdp/iter_2.pth"), expected, rtol=1e-5, atol=0)
    assert (losses(runs.folder / "ddp/iter_8.pth")[0] - expected[0]).abs() > 1e-4  # with statistics of each process
    means = [
        tensors(tmp_path / f"{name}/iter_2.pth")["state_dict.backbone.bn1.running_mean"] for name in ("ddp", "fsdp")
    ]
    torch.testing.assert_close(means[1], means[0])


def test_fsdp__names_a_loss_that_is_not_finite(runs: Runs, tmp_path: Path) -> None:
    planted = dict(FSDP, custom_hooks=[dict(type="SpoilImages", iterations=2)])
    assert train_in_children(runs.config, tmp_path, planted, processes=2) == 1
    (stored,) = tmp_path.glob("non_finite_iter_2_rank*.pth")
    message = check_checkpoint(stored)["message"]
    assert stored.stem.endswith("rank1")
    assert "Iteration 2: the loss is not finite (nan)" in message
    assert "First layer whose output is not finite: backbone.conv1 (Conv2d, float32)" in message
