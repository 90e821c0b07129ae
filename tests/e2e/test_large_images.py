"""`docs/large_images.md`, followed on a generated image: from an image to maps on disk."""

import re
from pathlib import Path

import pytest
import rasterio
import torch
from mmengine.registry import MODELS

from mmseg_m2f.command_line import predict
from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.config.load import load_config
from mmseg_m2f.inference.rasters import write_generated
from tests.command_line import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")]

CONFIG = "mask2former_r18_shapes_demo"
SIZE = (150, 230)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the guide's image and checkpoint; the weights are random."""
    monkeypatch.chdir(tmp_path)
    write_generated("orthophoto.tif", SIZE)
    Path("work_dirs/demo").mkdir(parents=True)
    model = MODELS.build(load_config(CONFIG).model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), "work_dirs/demo/iter_800.pth")
    return tmp_path


def blocks(language: str) -> list[str]:
    guide = (ROOT / "docs/large_images.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", guide, flags=re.DOTALL)


def check_labels(folder: Path) -> None:
    with rasterio.open(folder / "orthophoto_labels.tif") as file:
        assert file.shape == SIZE
        assert file.read(1).max() < 8


def test_guide__python(project):
    (code,) = blocks("python")
    exec(code, {})
    check_labels(project / "maps")


def test_guide__command(project):
    (line,) = [line for block in blocks("bash") for line in block.splitlines() if "--large" in line]
    words = line.replace("CONFIG", CONFIG).replace("CHECKPOINT", "work_dirs/demo/iter_800.pth").split()
    assert words[:2] == ["python", "tools/predict.py"]
    words[words.index("window_size=512")] = "window_size=96"
    words[words.index("window_overlap=128")] = "window_overlap=32"
    predict.main(words[2:], call=Call.of_tool("predict"))
    check_labels(project / "maps")


def test_guide__corrupt_image_ends_with_a_message(project, capsys):
    content = bytearray(Path("orthophoto.tif").read_bytes())
    content[200:-400] = bytes(len(content) - 600)
    Path("orthophoto.tif").write_bytes(content)
    arguments = [CONFIG, "work_dirs/demo/iter_800.pth", "orthophoto.tif", "--large", "--cfg-options", "window_size=96"]
    with pytest.raises(SystemExit) as ended:
        predict.main(arguments, call=Call.of_tool("predict"))
    assert ended.value.code == 2
    assert "orthophoto.tif" in capsys.readouterr().err
    assert not Path("predictions/orthophoto_labels.tif").exists()
