"""The pages of the tasks, followed word by word: from a folder of images to a trained model and its predictions."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from docs.site.sources import ROOT
from tests.command_line import environment

pytestmark = [pytest.mark.e2e, pytest.mark.exhaustive]  # tests/e2e/test_own_data.py runs the guide's leaves each time
# Two iterations of a small model on 64 x 64 pixels, from random weights.
SMALL = [
    *("backbone=r18_from_scratch", "batch_size=2", "crop_size=64", "max_iters=2", "val_interval=2"),
    *(f"{loop}_dataloader.num_workers=0" for loop in ("train", "val", "test")),
    *(f"{loop}_dataloader.persistent_workers=False" for loop in ("train", "val", "test")),
    *(f"model.decode_head.{part}.num_layers=1" for part in ("pixel_decoder", "query_decoder")),
    "default_hooks.checkpoint.interval=2",
]
SIZE = (64, 96)


def write_data(root: Path, task: str) -> None:
    """Four images with a square each, and its annotation as the page describes it."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        annotations, images = [], []
        for folder in ("images", "labels") if task == "semantic" else ("images", f"{task}_{split}"):
            name = f"{folder}/{split}" if folder in ("images", "labels") else folder
            (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(4):
            x, y = (int(value) for value in rng.integers(4, 40, 2))
            inside = np.zeros(SIZE, np.uint8)
            inside[y : y + 20, x : x + 20] = 1
            pixels = np.where(inside[..., None], 200, 60) + rng.integers(-20, 20, (*SIZE, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"images/{split}/{index}.png")
            images.append(dict(id=index, file_name=f"{index}.png", height=SIZE[0], width=SIZE[1]))
            if task == "semantic":
                Image.fromarray(inside).save(root / f"labels/{split}/{index}.png")
            elif task == "instance":
                corners = [x, y, x + 20, y, x + 20, y + 20, x, y + 20]
                box = [x, y, 20, 20]
                entry = dict(
                    id=index, image_id=index, category_id=1, segmentation=[corners], bbox=box, area=400, iscrowd=0
                )
                annotations.append(entry)
            else:
                ids = np.stack([inside + 1, inside * 0, inside * 0], axis=-1)
                Image.fromarray(ids).save(root / f"panoptic_{split}/{index}.png")
                segments = [dict(id=k + 1, category_id=k + 1, area=int((inside == k).sum()), iscrowd=0) for k in (0, 1)]
                annotations.append(dict(image_id=index, file_name=f"{index}.png", segments_info=segments))
        if task != "semantic":
            categories = [dict(id=1, name="square", isthing=1)]
            if task == "panoptic":
                categories = [dict(id=1, name="ground", isthing=0), dict(id=2, name="square", isthing=1)]
            content = dict(images=images, annotations=annotations, categories=categories)
            name = "instances" if task == "instance" else "panoptic"
            (root / f"{name}_{split}.json").write_text(json.dumps(content))


def run(command: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A command of the page, `python TOOL … [> FILE]`."""
    words, _, file = command.partition(" > ")
    called = [sys.executable, *words.split()[1:], *more]
    done = subprocess.run(called, cwd=folder, env=environment(), capture_output=True, text=True, timeout=900)
    if file:
        (folder / file).write_text(done.stdout)
    return done


@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
def test_page__from_own_images_to_a_trained_model(task: str, tmp_path: Path) -> None:
    page = (ROOT / f"docs/tasks/{task}.md").read_text(encoding="utf-8")
    section = re.search(r"## Your own data\n(.*?)\n## ", page, re.DOTALL)[1]
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    write_data(tmp_path / "data/mine", task)
    name = re.search(r"a leaf\s+on\s+top\s+of\s+it,\s+`(\w+\.py)`", section)[1]
    (tmp_path / name).write_text(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1])
    write, doctor, train = [
        line for block in re.findall(r"```bash\n(.*?)```", section, re.DOTALL) for line in block.splitlines()
    ]
    assert run(write, tmp_path).returncode == 0
    found = run(doctor, tmp_path)
    assert found.returncode in (0, 1), found.stdout + found.stderr
    assert "Traceback" not in found.stderr
    trained = run(train, tmp_path, "--cfg-options", *SMALL)
    assert trained.returncode == 0, trained.stdout[-2000:] + trained.stderr[-2000:]
    checkpoint = f"work_dirs/{Path(name).stem}/iter_2.pth"
    predict = f"python tools/predict.py work_dirs/{Path(name).stem}/{name} {checkpoint} data/mine/images/val"
    predicted = run(predict, tmp_path)
    assert predicted.returncode == 0, predicted.stdout[-2000:] + predicted.stderr[-2000:]
    kind = dict(semantic="labels/0.png", instance="instances.json", panoptic="panoptic/0.png")[task]
    assert (tmp_path / "predictions" / kind).is_file()
