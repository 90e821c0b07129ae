"""The command line: help, exit status, one process and two."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.tiny_segmentation import tiny_config, write_config, write_dataset

ROOT = Path(__file__).parents[2]


def run(*command: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command in the checkout, on one thread; the package need not be installed."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=paths)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == expect, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def tool(name: str, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, f"tools/{name}.py", *arguments, expect=expect)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `config.py` and what `tools/train.py` made of it."""
    folder = tmp_path_factory.mktemp("tools")
    write_dataset(folder / "data")
    config = write_config(tiny_config(folder / "data", max_iters=2), folder / "config.py")
    tool("train", config, "--work-dir", str(folder / "run"))
    return folder


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["train", "test", "predict"])
def test_tools__help_shows_an_example(name: str) -> None:
    assert f"python tools/{name}.py CONFIG" in tool(name, "--help").stdout


@pytest.mark.e2e
def test_train__then_test_and_predict(trained: Path) -> None:
    checkpoint = str(trained / "run/iter_2.pth")
    config = str(trained / "config.py")
    tool("test", config, checkpoint, "--out", str(trained / "out"), "--tta", "--work-dir", str(trained / "test"))
    assert 0 <= json.loads((trained / "out/metrics.json").read_text())["mIoU"] <= 1
    assert len(list((trained / "out/labels").glob("*.png"))) == 4
    broken = trained / "data/images/zzz.png"
    broken.write_bytes(b"no image")
    done = tool("predict", config, checkpoint, str(broken.parent), "--out-dir", str(trained / "seen"), expect=1)
    broken.unlink()
    assert f"skipped: Image {broken}" in done.stderr
    assert f"Wrote predictions to {trained / 'seen'}" in done.stdout
    assert len(list((trained / "seen").glob("*.png"))) == len(list((trained / "seen/labels").glob("*.png"))) == 4


@pytest.mark.e2e
def test_train__resumes_where_it_was(trained: Path) -> None:
    options = ["--cfg-options", "train_cfg.max_iters=3", "train_cfg.val_interval=3"]
    done = tool("train", str(trained / "config.py"), "--work-dir", str(trained / "run"), "--resume", *options)
    assert "resumed epoch: 0, iter: 2" in done.stdout + done.stderr
    assert (trained / "run/iter_3.pth").is_file()


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.backbone.depht=18"], "TypeError: model.backbone.depht: ResNet takes no argument 'depht'"),
        (["data_root=/nowhere"], "FileNotFoundError: train_dataloader.dataset.data_root: expected an existing"),
    ],
)
def test_train__prints_one_line_for_a_wrong_config(trained: Path, options: Sequence[str], message: str) -> None:
    done = tool("train", str(trained / "config.py"), "--cfg-options", *options, expect=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.e2e
def test_train__two_processes(trained: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = ["tools/train.py", str(trained / "config.py"), "--launcher", "pytorch"]
    done = run(*launch, *arguments, "--work-dir", str(trained / "two"))
    assert "mIoU" in done.stdout + done.stderr
    assert (trained / "two/iter_2.pth").is_file()
