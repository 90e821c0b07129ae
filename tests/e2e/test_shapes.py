"""The debug leaf through the three tools: trained, killed, resumed, tested, drawn; and by mmseg's own tool."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg_m2f.checkpoints.checking import check_checkpoint
from mmseg_m2f.engine.launch import find_checkpoint
from tests.command_line import ROOT, environment, run, run_tool

LEAF = "configs/mask2former/mask2former_r18_shapes_debug.py"
SMALL = [
    "train_dataloader.batch_size=2",
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
    "train_dataloader.dataset.length=8",
    "val_dataloader.dataset.length=2",
    "test_dataloader.dataset.length=2",
    "default_hooks.checkpoint.interval=2",
]


def iterations(count: int) -> list[str]:
    return [f"train_cfg.max_iters={count}", f"train_cfg.val_interval={count}"]


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of a run that was killed after its second iteration or later, then finished."""
    work_dir = tmp_path_factory.mktemp("shapes")
    command = [sys.executable, "tools/train.py", LEAF, "--work-dir", str(work_dir), "--cfg-options", *SMALL]
    with open(work_dir / "output.txt", "w") as output:
        process = subprocess.Popen(
            [*command, *iterations(10000)], cwd=ROOT, env=environment(), stdout=output, stderr=output
        )
        started = time.monotonic()
        while find_checkpoint(work_dir) is None and process.poll() is None and time.monotonic() < started + 300:
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
    newest = find_checkpoint(work_dir)
    assert newest is not None, (work_dir / "output.txt").read_text()[-3000:]
    reached = int(Path(newest).stem.removeprefix("iter_"))
    options = [*SMALL, *iterations(reached + 2)]
    done = run_tool("train", LEAF, "--work-dir", str(work_dir), "--resume", "--cfg-options", *options)
    assert f"resumed epoch: 0, iter: {reached}" in done.stdout + done.stderr
    (work_dir / f"iter_{reached + 2}.pth").rename(work_dir / "last.pth")
    return work_dir


@pytest.mark.e2e
def test_train__killed_run_leaves_complete_files_and_resumes(killed_and_resumed: Path) -> None:
    for checkpoint in killed_and_resumed.glob("*.pth"):
        check_checkpoint(checkpoint)
    content = check_checkpoint(killed_and_resumed / "last.pth")
    assert {"state_dict", "optimizer", "param_schedulers"} <= set(content)
    assert "mIoU" in json.loads((killed_and_resumed / "metrics.json").read_text())


@pytest.mark.e2e
@pytest.mark.parametrize("augmented", [False, True])
def test_test__gives_the_validation_metrics_or_the_augmented(
    killed_and_resumed: Path, tmp_path: Path, augmented: bool
) -> None:
    options = ["--tta"] * augmented
    checkpoint = str(killed_and_resumed / "last.pth")
    out = ["--out", str(tmp_path / "out"), "--show-dir", str(tmp_path / "show"), "--work-dir", str(tmp_path)]
    run_tool("test", LEAF, checkpoint, *out, *options, "--cfg-options", *SMALL)
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    if not augmented:
        assert metrics["mIoU"] == pytest.approx(json.loads((killed_and_resumed / "metrics.json").read_text())["mIoU"])
    assert len(os.listdir(tmp_path / "out/labels")) == len(os.listdir(tmp_path / "show")) == 2


@pytest.mark.e2e
def test_predict__writes_overlay_and_labels(killed_and_resumed: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 110, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    checkpoint = str(killed_and_resumed / "last.pth")
    run_tool("predict", LEAF, checkpoint, str(tmp_path / "photo.jpg"), "--out-dir", str(tmp_path / "out"))
    with Image.open(tmp_path / "out/labels/photo.png") as label:
        assert label.size == (110, 70)
        assert np.asarray(label).max() < 8
    assert (tmp_path / "out/photo.png").is_file()


@pytest.mark.e2e
def test_train__two_processes(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    options = ["--launcher", "pytorch", "--work-dir", str(tmp_path), "--cfg-options", *SMALL, *iterations(2)]
    run(*launch, "tools/train.py", LEAF, *options)
    assert find_checkpoint(tmp_path) == str(tmp_path / "iter_2.pth")


@pytest.mark.e2e
def test_train__by_the_stock_runner(tmp_path: Path) -> None:
    """No tool of ours and no import of ours: the config brings all that mmengine needs."""
    code = (
        "import sys; from mmengine.config import Config, DictAction; from mmengine.runner import Runner\n"
        "cfg = Config.fromfile(sys.argv[1]); cfg.work_dir = sys.argv[2]\n"
        "cfg.merge_from_dict({k: DictAction._parse_iterable(v) for k, v in (o.split('=') for o in sys.argv[3:])})\n"
        "Runner.from_cfg(cfg).train()"
    )
    run(sys.executable, "-c", code, LEAF, str(tmp_path), *SMALL, *iterations(2))
    assert find_checkpoint(tmp_path) == str(tmp_path / "iter_2.pth")
