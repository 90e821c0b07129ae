"""`docs/bands.md`, followed on generated images of six channels: from a folder to maps."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from PIL import Image

from mmseg_m2f.command_line import config, doctor, predict, train
from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.config.load import load_config
from mmseg_m2f.inference import Predictor
from tests.band_images import draw_bands, write_band_data
from tests.command_line import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")]
COMMANDS = dict(config=config, doctor=doctor, predict=predict, train=train)
GUIDE = (ROOT / "docs/bands.md").read_text()
#: A small model for two iterations in the place of the guide's.
SMALL = """
backbone = "r18_from_scratch"
batch_size = 2
val_interval = 2
model = dict(decode_head=dict(pixel_decoder=dict(num_layers=1), query_decoder=dict(num_layers=1)))
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
default_hooks = dict(checkpoint=dict(interval=2))
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, flags=re.DOTALL)


def lines() -> Iterator[list[str]]:
    """The words of the guide's commands."""
    for block in blocks("bash"):
        for line in block.replace("20000", "2").replace("window_size=256", "window_size=32").splitlines():
            yield line.split()


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run `mmseg_m2f COMMAND ...`, and give what it prints."""
    assert words[0] == "mmseg_m2f"
    capsys.readouterr()
    words, target = (words[: words.index(">")], words[-1]) if ">" in words else (words, None)
    status = 0
    try:
        COMMANDS[words[1]].main(words[2:], call=Call.of_command(words[1]))
    except SystemExit as ended:
        status = int(ended.code or 0)
    printed, errors = capsys.readouterr()
    assert status == 0, errors
    if target is not None:
        Path(target).write_text(printed)
    return printed


def test_guide__from_a_folder_to_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_band_data(Path("data/fields"))
    for split in ("train", "val"):
        for kind, suffix in (("images", "tif"), ("labels", "png")):
            Path(f"data/fields/{kind}/{split}/0.{suffix}").rename(f"data/fields/{kind}/{split}/a.{suffix}")
    to_base, statistics, training, folder, large = lines()
    leaf, use = blocks("python")
    run(to_base, capsys)
    leaf = leaf.replace("256, 256", "32, 32").replace("20000", "2") + SMALL
    Path("fields.py").write_text(leaf)
    line = run(statistics, capsys).splitlines()[-1]
    assert line.startswith("channels = dict(count=6, mean=[")
    Path("fields.py").write_text(leaf.replace("channels = 6", line.replace("])", "], shown=[3, 2, 1])")))
    run(training, capsys)
    run(folder, capsys)
    run(large, capsys)
    exec(use.replace("20000", "2"), {})

    with Image.open("maps/labels/a.png") as labels:
        assert labels.size == (64, 48)
    with rasterio.open("large/a_labels.tif") as file:
        assert file.shape == (48, 64)
    check_same_pixels(tmp_path)


def check_same_pixels(root: Path) -> None:
    """The predictor gives the model what the validation loader gives it."""
    cfg = load_config("fields.py")
    with torch.no_grad():
        predictor = Predictor("fields.py", "work_dirs/fields/iter_2.pth", device="cpu")
        seen: list[torch.Tensor] = []
        predictor.model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
        predictor(root / "data/fields/images/val/a.tif")
        predictor(draw_bands(10)[0])
        dataset = DATASETS.build(cfg.val_dataloader.dataset)
        (index,) = [n for n in range(2) if dataset.get_data_info(n)["img_path"].endswith("a.tif")]
        predictor.model.test_step(pseudo_collate([dataset[index]]))
    assert seen[0].shape[1] == 6
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[2])
    with pytest.raises(ValueError, match=r"Predictor, image: expected 6 channels \(option channels\), got 4"):
        predictor(np.zeros((8, 8, 4), np.uint16))
