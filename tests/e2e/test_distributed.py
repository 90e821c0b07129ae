import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("distributed_losses.py")

pytestmark = pytest.mark.e2e


def losses_and_gradient(world: int, out: Path) -> dict:
    """What the fixed batch of two images gives when it is spread over `world` processes."""
    processes = []
    for rank in range(world):
        command = [sys.executable, str(SCRIPT), str(out), str(rank), str(world)]
        processes.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return torch.load(out, weights_only=True)


def test_distributed__two_processes_give_the_losses_and_gradients_of_one(tmp_path):
    single = losses_and_gradient(1, tmp_path / "one.pt")
    double = losses_and_gradient(2, tmp_path / "two.pt")
    assert len(single["losses"]) == 14
    assert double["losses"] == pytest.approx(single["losses"], rel=1e-4)
    difference = (double["gradient"] - single["gradient"]).norm() / single["gradient"].norm()
    assert difference < 1e-4
