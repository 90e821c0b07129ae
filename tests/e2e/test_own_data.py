"""`docs/own_data.md`, followed to the letter: its configs, its folders, its options."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmseg_m2f.checkpoints.checking import check_checkpoint
from tests.command_line import ROOT, run_tool

pytestmark = pytest.mark.e2e


# One iteration of a small model; the jitter of COCO's recipes to 64 x 64 pixels instead of 1024 x 1024.
SMALL = [
    "backbone=r18_from_scratch",
    "train_dataloader.batch_size=1",
    *(f"{loop}_dataloader.num_workers=0" for loop in ("train", "val", "test")),
    *(f"{loop}_dataloader.persistent_workers=False" for loop in ("train", "val", "test")),
    *(f"model.decode_head.{part}.num_layers=1" for part in ("pixel_decoder", "query_decoder")),
    "train_cfg.max_iters=1",
    "default_hooks.checkpoint.interval=1",
]
SMALL_JITTER = [
    "train_dataloader.dataset.pipeline.3.scale=(64,64)",
    "train_dataloader.dataset.pipeline.4.crop_size=(64,64)",
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The guide's files in a copy of `configs`, two images for training and two for validation, and their labels."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    guide = (ROOT / "docs/own_data.md").read_text()
    files = re.findall(r"`(configs/\S+/\S*mine\S*\.py)`.*?```python\n(.*?)```", guide, flags=re.DOTALL)
    assert len(files) == 6
    for name, content in files:
        (tmp_path / name).write_text(content)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / f"data/mine/{kind}/{split}").mkdir(parents=True)
        for index in range(2):
            labels = np.full((48, 64), 255, np.uint8)
            labels[:, :50] = np.arange(50) * 3 // 50
            Image.fromarray(labels).save(tmp_path / f"data/mine/labels/{split}/{index}.png")
            Image.fromarray(np.stack([labels * 80] * 3, -1)).save(tmp_path / f"data/mine/images/{split}/{index}.jpg")
        write_coco_files(tmp_path / "data/mine", split)
    return tmp_path


def write_coco_files(root: Path, split: str) -> None:
    """The same images with objects in one COCO file and segments in another; the second image has no object."""
    images = [dict(id=i, file_name=f"{i}.jpg", height=48, width=64) for i in range(2)]
    categories = [dict(id=i, name=f"class {i}", isthing=int(i < 10)) for i in (3, 7, 20, 30)]
    box = [[8, 8, 40, 8, 40, 40, 8, 40]]
    objects = [dict(id=0, image_id=0, category_id=7, segmentation=box)]
    content = dict(categories=categories[:2], images=images, annotations=objects)
    (root / f"{split}.json").write_text(json.dumps(content))
    segments = [dict(id=1, category_id=20), dict(id=300, category_id=7)]
    annotations = [dict(image_id=i, file_name=f"{i}.png", segments_info=segments[: 2 - i]) for i in range(2)]
    content = dict(categories=categories, images=images, annotations=annotations)
    (root / f"panoptic_{split}.json").write_text(json.dumps(content))
    (root / f"segments/{split}").mkdir(parents=True)
    for index in range(2):
        colours = np.zeros((48, 64, 3), np.uint8)
        colours[:, :50, 0] = 1
        if index == 0:
            colours[8:40, 8:40, :2] = 300 % 256, 300 // 256
        Image.fromarray(colours).save(root / f"segments/{split}/{index}.png")


@pytest.mark.parametrize(
    ("data", "metrics", "options"),
    [
        ("objects", {"AP"}, ["model.data_preprocessor.batch_augments.0.size=(64,64)"]),
        ("panoptic", {"AP", "PQ", "mIoU"}, ["train_dataloader.dataset.pipeline.5.size=(64,64)"]),
    ],
)
def test_own_data__objects_and_segments(project: Path, data: str, metrics: set[str], options: list[str]) -> None:
    leaf = str(project / f"configs/mask2former/mask2former_r50_mine_{data}.py")
    small = [f"data_root={project / 'data/mine'}", *SMALL, *SMALL_JITTER, *options]
    small += [f"{loop}_dataloader.dataset.pipeline.1.scale=(64,48)" for loop in ("val", "test")]
    run_tool("train", leaf, "--work-dir", str(project / "run"), "--cfg-options", *small)
    out = ["--out", str(project / "out"), "--work-dir", str(project / "run")]
    run_tool("test", leaf, str(project / "run/iter_1.pth"), *out, "--cfg-options", *small)
    found = json.loads((project / "out/metrics.json").read_text())
    assert metrics <= set(found)
    assert all(0 <= found[name] <= 1 for name in metrics)


def test_own_data__trains_tests_in_windows_and_fine_tunes(project: Path) -> None:
    leaf = str(project / "configs/mask2former/mask2former_r50_mine.py")
    small = [f"data_root={project / 'data/mine'}", *SMALL]
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
