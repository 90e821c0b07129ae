"""A config and a checkpoint as one call, on arrays, files and folders."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch import nn

from mmseg_m2f.inference.folder import predict_folder
from mmseg_m2f.inference.predictor import Predictor
from tests.command_line import ROOT
from tests.tiny_segmentation import CLASSES, PALETTE, tiny_config, write_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and a checkpoint of a model with known answers: see `brightness_model`."""
    folder = tmp_path_factory.mktemp("predictor")
    write_dataset(folder / "data")
    torch.manual_seed(0)
    model = Predictor(tiny_config(folder / "data")).model
    torch.save(dict(state_dict=model.state_dict()), folder / "good.pth")
    return folder


@pytest.fixture
def cfg(folder: Path) -> Config:
    return tiny_config(folder / "data")


@pytest.fixture
def predictor(folder: Path, cfg: Config) -> Predictor:
    return Predictor(cfg, folder / "good.pth")


def test_predictor__same_answer_for_file_array_and_direct_call(predictor: Predictor, folder: Path) -> None:
    path = folder / "data/images/001.png"
    image = cv2.imread(str(path))
    labels = predictor(path)
    with torch.no_grad():
        pixels = torch.from_numpy(image[None]).permute(0, 3, 1, 2).float()
        logits = predictor.model.encode_decode((pixels - 120) / 60, [dict(img_shape=image.shape[:2])])
        expected = nn.functional.interpolate(logits, image.shape[:2], mode="bilinear")[0].argmax(0)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, expected.numpy())
    assert np.array_equal(labels, predictor(image))


@pytest.mark.parametrize("size", [(33, 47), (17, 90)])
def test_predictor__answers_at_the_size_of_the_image(predictor: Predictor, size: tuple[int, int]) -> None:
    assert predictor(np.zeros((*size, 3), dtype=np.uint8)).shape == size


def test_predictor__knows_classes_and_palette(predictor: Predictor) -> None:
    assert predictor.classes == list(CLASSES)
    assert predictor.palette == PALETTE


def test_predictor__works_for_generated_data(cfg: Config) -> None:
    pipeline = [dict(type="mmseg.PackSegInputs")]
    cfg.test_dataloader.dataset = dict(type="mmseg_m2f.GeneratedShapes", length=1, pipeline=pipeline)
    cfg.model.decode_head.num_classes = 8
    predictor = Predictor(cfg)
    assert len(predictor.classes) == len(predictor.palette) == 8
    assert predictor(np.zeros((40, 50, 3), dtype=np.uint8)).shape == (40, 50)


def test_predictor__works_for_stock_configs_with_a_default_scope(cfg: Config) -> None:
    cfg.default_scope = "mmseg"
    cfg.model.decode_head.type = "FCNHead"
    cfg.test_dataloader.dataset.pipeline = [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]
    assert Predictor(cfg)(np.zeros((32, 32, 3), dtype=np.uint8)).shape == (32, 32)


def test_predictor__refuses_another_class_count(cfg: Config) -> None:
    cfg.model.decode_head.num_classes = 3
    with pytest.raises(ValueError, match=r"num_classes is 3, but test_dataloader.dataset .* has 2 classes. Set"):
        Predictor(cfg)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
    ids=["grey", "alpha", "empty"],
)
def test_predictor__refuses_other_arrays(predictor: Predictor, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected a BGR image H W 3 of uint8, got shape"):
        predictor(image)


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
        assert np.array_equal(np.asarray(label), predictor(images / "a.png"))
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


def test_predictor__refuses_a_detector() -> None:
    with pytest.raises(ValueError, match=r"expected the config of a semantic segmentor, got mmseg_m2f.MaskDetector"):
        Predictor(ROOT / "configs/mask2former/mask2former_r18_shapes-panoptic_demo.py")
