from pathlib import Path
from types import SimpleNamespace

import pytest

from mmseg_m2f.datasets.unlisted_images import report_unlisted_images, unlisted_images


def dataset(folder: Path, *files: str, **more: object) -> SimpleNamespace:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    given = dict(data_prefix=dict(img_path=str(folder)), img_suffix=".jpg", seg_map_suffix=".png", ann_file="")
    return SimpleNamespace(**given | more)


def test_unlisted_images__other_suffixes_and_letters(tmp_path: Path) -> None:
    data = dataset(tmp_path, "a.jpg", "b.JPG", "c.jpeg", "sub/d.Jpg", "notes.txt", "e.tif")
    assert unlisted_images(data) == ["b.JPG", "c.jpeg", "e.tif", "sub/d.Jpg"]


def test_unlisted_images__labels_beside_the_images_are_none(tmp_path: Path) -> None:
    assert unlisted_images(dataset(tmp_path, "a.jpg", "a.png", "b_label.png", "a.tif")) == []


def test_unlisted_images__lists_choose_themselves(tmp_path: Path) -> None:
    (tmp_path / "train.txt").touch()
    assert unlisted_images(dataset(tmp_path, "b.JPG", ann_file=str(tmp_path / "train.txt"))) == []
    assert unlisted_images(object()) == []


def test_report_unlisted_images__says_how_many_and_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("mmseg_m2f.datasets.unlisted_images.print_log", lambda text, **_: lines.append(text))
    wrapped = SimpleNamespace(datasets=[SimpleNamespace(dataset=dataset(tmp_path, "a.jpg", "b.JPG"))])
    report_unlisted_images(wrapped, loop="train")
    (line,) = lines
    assert line.startswith("train_dataloader.dataset (SimpleNamespace): 1 images are left out")
    assert "img_suffix='.jpg': b.JPG. Rename" in line
