"""Train, resume, predict: the path of every user, on whichever OpenMMLab packages are installed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmseg_m2f import compat
from mmseg_m2f.inference import Predictor

ROOT = Path(__file__).parents[2]
CONFIG = "configs/mask2former/mask2former_r18_shapes_debug.py"

pytestmark = [pytest.mark.smoke, pytest.mark.e2e, pytest.mark.slow]


def train(work_dir: Path, *options: str, max_iters: int) -> None:
    command = [sys.executable, "tools/train.py", CONFIG, "--work-dir", str(work_dir), *options]
    command += ["--cfg-options", f"train_cfg.max_iters={max_iters}", f"train_cfg.val_interval={max_iters}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two iterations."""
    folder = tmp_path_factory.mktemp("smoke")
    train(folder, max_iters=2)
    return folder


def test_training__is_evaluated(work_dir: Path) -> None:
    metrics = json.loads((work_dir / "metrics.json").read_text())
    assert 0 <= metrics["mIoU"] <= 1


def test_prediction__labels_each_pixel(work_dir: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    predictor = Predictor(str(ROOT / CONFIG), str(work_dir / "iter_2.pth"), device="cpu")
    labels = predictor(image).semantic
    assert labels.shape == (50, 70)
    assert set(np.unique(labels)) <= set(range(predictor.model.decode_head.num_classes))


def test_resumed_training__continues_the_same_optimizer(work_dir: Path) -> None:
    train(work_dir, "--resume", max_iters=3)
    compat.allow_safe_checkpoint_globals()
    checkpoint = torch.load(work_dir / "iter_3.pth", weights_only=True)
    steps = {int(state["step"]) for state in checkpoint["optimizer"]["state"].values()}
    assert steps == {3}
