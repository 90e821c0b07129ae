"""`docs/own_data.md`, followed to the letter: its two configs, its folders, its options."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmseg_m2f.engine.preflight import check_checkpoint
from tests.command_line import ROOT, run_tool

pytestmark = pytest.mark.e2e


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The guide's files in a copy of `configs`, and four images of the right kind."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    guide = (ROOT / "docs/own_data.md").read_text()
    dataset, leaf = re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL)
    (tmp_path / "configs/_base_/datasets/mine.py").write_text(dataset)
    (tmp_path / "configs/mask2former/mask2former_r50_mine.py").write_text(leaf)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / f"data/mine/{kind}/{split}").mkdir(parents=True)
        for index in range(2):
            labels = np.full((48, 64), 255, np.uint8)
            labels[:, :50] = np.arange(50) * 3 // 50
            Image.fromarray(labels).save(tmp_path / f"data/mine/labels/{split}/{index}.png")
            Image.fromarray(np.stack([labels * 80] * 3, -1)).save(tmp_path / f"data/mine/images/{split}/{index}.jpg")
    return tmp_path


def test_own_data__trains_tests_in_windows_and_fine_tunes(project: Path) -> None:
    leaf = str(project / "configs/mask2former/mask2former_r50_mine.py")
    small = [
        f"data_root={project / 'data/mine'}",
        "backbone=r18_from_scratch",
        "train_dataloader.batch_size=1",
        *(f"{loop}_dataloader.num_workers=0" for loop in ("train", "val", "test")),
        *(f"{loop}_dataloader.persistent_workers=False" for loop in ("train", "val", "test")),
        *(f"model.decode_head.{part}.num_layers=1" for part in ("pixel_decoder", "query_decoder")),
        "train_cfg.max_iters=1",
        "default_hooks.checkpoint.interval=1",
    ]
    run_tool("train", leaf, "--work-dir", str(project / "run"), "--cfg-options", *small)
    checkpoint = str(project / "run/iter_1.pth")

    window = "model.test_cfg.{}=512,512".format
    slide = ["model.test_cfg.mode=slide", window("crop_size"), "model.test_cfg.stride=341,341"]
    out = ["--out", str(project / "out"), "--work-dir", str(project / "run")]
    run_tool("test", leaf, checkpoint, *out, "--cfg-options", *small, *slide)
    assert 0 <= json.loads((project / "out/metrics.json").read_text())["mIoU"] <= 1

    weights = dict(check_checkpoint(checkpoint)["state_dict"])
    for part in ("weight", "bias"):
        name = f"decode_head.query_decoder.cls_embed.{part}"
        weights[name] = torch.cat([weights[name]] * 2)  # 7 classes and "no object" instead of 3
    torch.save(dict(state_dict=weights), project / "seven_classes.pth")
    start = [
        "--work-dir",
        str(project / "tuned"),
        "--cfg-options",
        *small,
        f"load_from={project / 'seven_classes.pth'}",
    ]
    refused = run_tool("train", leaf, *start, expect=2)
    assert "has 7 classes, but decode_head.num_classes is 3" in refused.stderr
    run_tool("train", leaf, *start, "model.decode_head.replace_classifier=True")
