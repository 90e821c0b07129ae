"""Twenty iterations at once equal ten, a SIGKILL, and ten more, in every bit."""

from pathlib import Path

import pytest
import torch

from tests.e2e.forked_runs import random_config, tensors, train_in_children
from tests.tiny_segmentation import write_config, write_dataset

pytestmark = pytest.mark.e2e

VARIANTS = {
    "plain": {},
    "amp": {},
    "ema": {"custom_hooks": [dict(type="mmengine.EMAHook", momentum=0.1)]},
    "accumulation": {"optim_wrapper.accumulative_counts": 4},  # 10 is in the middle of a step
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("exact")
    write_dataset(folder / "data", count=5)
    return write_config(random_config(folder / "data"), folder / "exact.py")


def straight_and_resumed(config: str, folder: Path, variant: str, *, workers: int, processes: int) -> tuple[dict, dict]:
    options = dict(VARIANTS[variant])
    arguments = dict(amp=variant == "amp", processes=processes)
    assert train_in_children(config, folder / "straight", options, **arguments) == 0, log(folder / "straight")
    options["train_dataloader.num_workers"] = workers
    hooks = options.get("custom_hooks", [])
    killed = dict(options, custom_hooks=[*hooks, dict(type="KillAfter", iterations=10)])
    assert train_in_children(config, folder / "broken", killed, **arguments) == -9, log(folder / "broken")
    resumed = train_in_children(config, folder / "broken", options, resume=True, **arguments)
    assert resumed == 0, log(folder / "broken")
    return tensors(folder / "straight/iter_20.pth"), tensors(folder / "broken/iter_20.pth")


def log(folder: Path) -> str:
    return (folder / "rank0.log").read_text()[-3000:]


def assert_equal(straight: dict, resumed: dict) -> None:
    assert straight.keys() == resumed.keys()
    assert [name for name, value in straight.items() if not torch.equal(value, resumed[name])] == []
    assert len(straight) > 200


@pytest.mark.parametrize(("variant", "workers", "processes"), [("accumulation", 2, 1), ("ema", 0, 1), ("amp", 2, 2)])
def test_resume__equals_the_straight_run(
    config: str, tmp_path: Path, variant: str, workers: int, processes: int
) -> None:
    assert_equal(*straight_and_resumed(config, tmp_path, variant, workers=workers, processes=processes))


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("variant", VARIANTS)
def test_resume__equals_the_straight_run_in_all_variants(
    config: str, tmp_path: Path, variant: str, workers: int, processes: int
) -> None:
    assert_equal(*straight_and_resumed(config, tmp_path, variant, workers=workers, processes=processes))
