"""Scripts that mmseg and mmdet ship, run unchanged on our configs of generated scenes."""

import importlib.util
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

from tests.command_line import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore")]  # upstream warns of its own defaults

SEMANTIC = ("mmseg", "mask2former/mask2former_r18_shapes_demo")
OBJECTS = ("mmdet", "mask2former/mask2former_r18_shapes-instance_demo")
PANOPTIC = ("mmdet", "mask2former/mask2former_r18_shapes-panoptic_demo")
# As docs/upstream.md says: the package is imported before the script's own imports.
START = "import sys, runpy, mmseg_m2f; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


def script(library: str, name: str) -> str:
    spec = importlib.util.find_spec(library)
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / ".mim/tools/analysis_tools" / name)


@pytest.mark.parametrize(
    ("library", "config", "options"), [(*SEMANTIC, ["--shape", "64", "64"]), (*OBJECTS, ["--num-images", "1"])]
)
def test_get_flops__counts_a_model(library: str, config: str, options: list[str]) -> None:
    """In a process without checks of shapes: sizes are tensors while a model is traced."""
    file = str(ROOT / f"configs/{config}.py")
    done = subprocess.run(
        [sys.executable, "-c", START, script(library, "get_flops.py"), file, *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    number = sum(parameter.numel() for parameter in MODELS.build(Config.fromfile(file).model).parameters())
    assert f"Params: {number / 1e6:.3f}M" in done.stdout
    assert "Flops: 0." in done.stdout


@pytest.mark.parametrize(("library", "config"), [SEMANTIC, OBJECTS, PANOPTIC])
def test_browse_dataset__draws_the_truth(
    library: str, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--output-dir", str(tmp_path), "--not-show", "--cfg-options", "train_dataloader.dataset.length=2"]
    file = script(library, "browse_dataset.py")
    monkeypatch.setattr(sys, "argv", [file, str(ROOT / f"configs/{config}.py"), *arguments])
    runpy.run_path(file, run_name="__main__")
    pictures = [cv2.imread(str(path)) for path in sorted(tmp_path.iterdir())]
    assert len(pictures) == 2
    assert all(len(np.unique(picture.reshape(-1, 3), axis=0)) > 20 for picture in pictures)
