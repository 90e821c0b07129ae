import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg_m2f.inference.folder import predict_folder
from mmseg_m2f.inference.predictor import Predictor
from tests.inference.bright_objects import detector_config
from tests.tiny_segmentation import PALETTE


def test_predict_folder__writes_overlay_and_labels_and_keeps_subfolders(
    predictor: Predictor, folder: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/a.png", "sub/a.bmp"):
        Image.open(folder / "data/images/000.png").save(images / name)
    out = images / "out"
    for _ in range(2):  # the second time, what the first one wrote is no input
        assert predict_folder(predictor, images, out) == []
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
    names = ["a.png", "sub/a.bmp.png", "sub/a.png.png"]
    assert written == sorted([*names, *(f"labels/{name}" for name in names)])
    with Image.open(out / "labels/a.png") as label:
        assert np.array_equal(np.asarray(label), predictor(images / "a.png").semantic)
    with Image.open(out / "a.png") as page:
        assert page.width >= 240  # the legend has room
        assert page.height > 32


def test_predict_folder__names_the_broken_and_writes_the_others(
    predictor: Predictor, folder: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    data = (folder / "data/images/000.png").read_bytes()
    (images / "good.png").write_bytes(data)
    (images / "bad.png").write_bytes(data[:300])
    faults = predict_folder(predictor, images, tmp_path / "out")
    assert len(faults) == 1
    assert f"Image {images / 'bad.png'} (300 bytes) cannot be decoded" in faults[0]
    assert sorted(os.listdir(tmp_path / "out/labels")) == ["good.png"]


def test_predict_folder__says_what_is_missing(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected an image or a folder of images, got neither"):
        predict_folder(predictor, tmp_path / "nowhere", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"got a folder without any"):
        predict_folder(predictor, tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match=r"opacity is 1.5; expected 0"):
        predict_folder(predictor, tmp_path, tmp_path / "out", opacity=1.5)
    with pytest.raises(ValueError, match=r"score_threshold is -1.0; expected 0"):
        predict_folder(predictor, tmp_path / "nowhere", tmp_path, score_threshold=-1.0)


def test_predict_folder__detector_writes_coco_formats(photo: Path, tmp_path: Path) -> None:
    assert predict_folder(Predictor(detector_config()), photo, tmp_path / "out", score_threshold=0.5) == []
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["instances.json", "one.png", "panoptic.json", "panoptic/one.png"]
    (found,) = json.loads((tmp_path / "out/instances.json").read_text())  # below the threshold of drawing
    assert (found["image_id"], found["category_id"], found["bbox"]) == ("one.png", 1, [1, 2, 10, 20])
    (annotation,) = json.loads((tmp_path / "out/panoptic.json").read_text())["annotations"]
    assert [info["area"] for info in annotation["segments_info"]] == [1000, 200]


def test_predict_folder__score_threshold_is_that_of_drawing(photo: Path, tmp_path: Path) -> None:
    predictor = Predictor(detector_config(results=("instances",), with_masks=False))
    pages = []
    for threshold in (0.3, 0.5):
        predict_folder(predictor, photo, tmp_path / f"{threshold}", score_threshold=threshold)
        pages.append(cv2.imread(str(tmp_path / f"{threshold}/one.png")))
    box_side = (slice(30, 120), slice(5, 9))
    assert (pages[0][box_side] == PALETTE[1][::-1]).all(-1).any()
    assert not (pages[1][box_side] == PALETTE[1][::-1]).all(-1).any()


def test_predict_folder__interrupted_json_holds_the_images_so_far(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(detector_config())
    (photo.parent / "two.png").write_bytes(photo.read_bytes())
    read = predictor.read

    def interrupt(path: Path) -> np.ndarray:
        if path.name == "two.png":
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(predictor, "read", interrupt)
    with pytest.raises(KeyboardInterrupt):
        predict_folder(predictor, photo.parent, tmp_path / "out")
    assert [entry["image_id"] for entry in json.loads((tmp_path / "out/instances.json").read_text())] == ["one.png"]
    assert len(json.loads((tmp_path / "out/panoptic.json").read_text())["images"]) == 1


def test_predict_folder__names_like_those_of_results(predictor: Predictor, folder: Path, tmp_path: Path) -> None:
    """Each image keeps its picture and its label map, whatever the folders are called."""
    images = ["a.png", "labels/a.png", "panoptic/a.png", "b.jpg", "b.png", "b.png.jpg", "c.png/a.png", "c.jpg"]
    for index, name in enumerate(images):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 32 + index)).save(tmp_path / "in" / name)
    assert predict_folder(predictor, tmp_path / "in", tmp_path / "out") == []
    written = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.png") if path.is_file()]
    labels = [path for path in written if path.parts[0] == "labels"]
    assert len(labels) == len(images)
    assert len(written) == 2 * len(images)
    heights = []
    for path in labels:
        with Image.open(tmp_path / "out" / path) as label:
            heights.append(label.height)
    assert sorted(heights) == [32 + index for index in range(len(images))]


def test_predict_folder__extreme_sizes_do_not_end_the_run(
    predictor: Predictor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for name, size in (("a.png", (48, 32)), ("row.png", (300, 1)), ("column.png", (1, 300)), ("z.png", (48, 32))):
        Image.new("RGB", size).save(tmp_path / "in" / name)
    Image.new("RGB", (400, 400)).save(tmp_path / "in/bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
    faults = predict_folder(predictor, tmp_path / "in", tmp_path / "out")
    assert any("bomb.png: expected at most 100,000 pixels" in fault and "--large" in fault for fault in faults)
    named = {name for name in ("row", "column", "bomb") if any(f"{name}.png" in fault for fault in faults)}
    written = {path.stem for path in (tmp_path / "out/labels").iterdir()}
    assert {"a", "z"} <= written
    assert named | written == {"a", "z", "row", "column", "bomb"}
    assert not named & written


def test_predict_folder__what_the_model_raises_is_a_fault_of_the_image(
    predictor: Predictor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for name, size in (("a.png", (48, 32)), ("thin.png", (300, 2))):
        Image.new("RGB", size).save(tmp_path / "in" / name)
    usual = predictor.model.test_step

    def test_step(batch: dict) -> object:
        if batch["inputs"][0].shape[-2] < 4:
            raise RuntimeError("Kernel size can't be greater than actual input size\nat line 3")
        return usual(batch)

    monkeypatch.setattr(predictor.model, "test_step", test_step)
    (fault,) = predict_folder(predictor, tmp_path / "in", tmp_path / "out")
    assert fault == (
        f"Image {tmp_path / 'in/thin.png'} is 2 x 300 (height x width) and cannot be predicted: RuntimeError: Kernel "
        "size can't be greater than actual input size. Crop or resize it, or leave it out."
    )
    assert [path.name for path in (tmp_path / "out/labels").iterdir()] == ["a.png"]


def test_predict_folder__unusual_names_and_colours(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    picture = Image.new("RGB", (48, 32), (200, 30, 10))
    names = ["line\nbreak.png", "n" * 240 + ".png", "é" * 120 + ".png"]
    for name in names:
        picture.save(tmp_path / "in" / name)
    picture.resize((1, 1)).save(tmp_path / "in/pixel.png")
    picture.convert("CMYK").save(tmp_path / "in/cmyk.jpg", quality=95)
    np.testing.assert_allclose(predictor.read(tmp_path / "in/cmyk.jpg")[5, 5], (10, 30, 200), atol=2)
    assert predict_folder(predictor, tmp_path / "in", tmp_path / "out") == []
    written = {path.name for path in (tmp_path / "out/labels").iterdir()}
    assert written == {*names, "pixel.png", "cmyk.png"}


def test_predict_folder__names_what_has_no_file(predictor: Predictor, tmp_path: Path) -> None:
    """Broken links, and two images whose results have to differ in more than file names have room for."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link.png").symlink_to(tmp_path / "nowhere.png")
    for name in ("a.png", "n" * 251 + ".png", "n" * 251 + ".bmp"):
        Image.new("RGB", (48, 32)).save(tmp_path / "in" / name)
    link, *long = predict_folder(predictor, tmp_path / "in", tmp_path / "out")
    assert f"Image {tmp_path / 'in/link.png'} does not exist" in link
    assert ["got one too long" in fault and "Shorten it" in fault for fault in long] == [True, True]
    assert [path.name for path in (tmp_path / "out/labels").iterdir()] == ["a.png"]
