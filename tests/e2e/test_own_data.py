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
from mmseg_m2f.command_line import predict, test, train
from mmseg_m2f.command_line.arguments import Call
from tests.command_line import ROOT

pytestmark = pytest.mark.e2e
COMMANDS = dict(train=train, test=test, predict=predict)


# Two iterations of a small model on 64 x 64 pixels.
SMALL = [
    *("backbone=r18_from_scratch", "batch_size=1", "crop_size=64", "max_iters=2", "val_interval=2"),
    *(f"{loop}_dataloader.num_workers=0" for loop in ("train", "val", "test")),
    *(f"model.decode_head.{part}.num_layers=1" for part in ("pixel_decoder", "query_decoder")),
    *(f"{loop}_dataloader.dataset.pipeline.1.scale=(64,48)" for loop in ("val", "test")),
    "default_hooks.checkpoint.interval=2",
]


def run(name: str, *arguments: str) -> int:
    """The exit status of `mmseg_m2f NAME`."""
    try:
        COMMANDS[name].main(arguments, call=Call.of_command(name))
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The guide's leaves in a copy of `configs`, two images for training and two for validation, and their labels."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    guide = (ROOT / "docs/own_data.md").read_text()
    files = re.findall(r"`(configs/mine/\S+\.py)`:\n\n```python\n(.*?)```", guide, flags=re.DOTALL)
    assert [Path(name).stem for name, _ in files] == ["labels", "objects", "panoptic"]
    (tmp_path / "configs/mine").mkdir()
    for name, content in files:
        assert len(content.splitlines()) <= 10
        assert content.count('"data/mine"') == 1
        (tmp_path / name).write_text(content.replace('"data/mine"', repr(str(tmp_path / "data/mine"))))
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
    (root / f"instances_{split}.json").write_text(json.dumps(content))
    segments = [dict(id=1, category_id=20), dict(id=300, category_id=7)]
    annotations = [dict(image_id=i, file_name=f"{i}.png", segments_info=segments[: 2 - i]) for i in range(2)]
    content = dict(categories=categories, images=images, annotations=annotations)
    (root / f"panoptic_{split}.json").write_text(json.dumps(content))
    (root / f"panoptic_{split}").mkdir(parents=True)
    for index in range(2):
        colours = np.zeros((48, 64, 3), np.uint8)
        colours[:, :50, 0] = 1
        if index == 0:
            colours[8:40, 8:40, :2] = 300 % 256, 300 // 256
        Image.fromarray(colours).save(root / f"panoptic_{split}/{index}.png")


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # of pycocotools
@pytest.mark.parametrize(
    ("kind", "metrics", "written"),
    [
        ("labels", {"mIoU"}, "labels/0.png"),
        ("objects", {"AP"}, "instances.json"),
        ("panoptic", {"AP", "PQ", "mIoU"}, "panoptic.json"),
    ],
)
def test_own_data__trains_tests_and_predicts(kind: str, metrics: set[str], written: str, project: Path) -> None:
    leaf = str(project / f"configs/mine/{kind}.py")
    assert run("train", leaf, "--work-dir", str(project / "run"), "--cfg-options", *SMALL) == 0
    checkpoint, out = str(project / "run/iter_2.pth"), ["--out", str(project / "out")]
    assert run("test", leaf, checkpoint, *out, "--work-dir", str(project / "run"), "--cfg-options", *SMALL) == 0
    found = json.loads((project / "out/metrics.json").read_text())
    assert metrics <= set(found)
    assert all(0 <= found[name] <= 1 for name in metrics)
    (project / "data").rename(project / "moved")  # the config of the run has all classes written out
    of_run = str(project / f"run/{kind}.py")
    images = str(project / "moved/mine/images/val")
    assert run("predict", of_run, checkpoint, images, "--out-dir", str(project / "seen")) == 0
    assert (project / "seen" / written).is_file()


def test_own_data__tests_in_windows_and_fine_tunes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaf = str(project / "configs/mine/labels.py")
    assert run("train", leaf, "--work-dir", str(project / "run"), "--cfg-options", *SMALL) == 0
    checkpoint = str(project / "run/iter_2.pth")

    window = "model.test_cfg.{}=512,512".format
    slide = ["model.test_cfg.mode=slide", window("crop_size"), "model.test_cfg.stride=341,341"]
    out = ["--out", str(project / "out"), "--work-dir", str(project / "run")]
    assert run("test", leaf, checkpoint, *out, "--cfg-options", *SMALL, *slide) == 0
    assert 0 <= json.loads((project / "out/metrics.json").read_text())["mIoU"] <= 1

    weights = dict(check_checkpoint(checkpoint)["state_dict"])
    for part in ("weight", "bias"):
        name = f"decode_head.query_decoder.cls_embed.{part}"
        weights[name] = torch.cat([weights[name]] * 2)  # 7 classes and "no object" instead of 3
    torch.save(dict(state_dict=weights), project / "seven_classes.pth")
    start = ["--work-dir", str(project / "tuned"), "--cfg-options", *SMALL]
    start.append(f"load_from={project / 'seven_classes.pth'}")
    assert run("train", leaf, *start) == 2
    assert "has 7 classes, but decode_head.num_classes is 3" in capsys.readouterr().err
    assert run("train", leaf, *start, "model.decode_head.replace_classifier=True") == 0
