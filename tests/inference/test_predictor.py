"""Segmentors and detectors as one call, on arrays, files and folders."""

import json
import sys
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmseg_m2f import compat
from mmseg_m2f.config.load import load_config
from mmseg_m2f.engine import class_agreement
from mmseg_m2f.inference.predictor import Predictor
from tests.command_line import ROOT
from tests.inference.bright_objects import detector_config
from tests.tiny_segmentation import CLASSES, PALETTE


def test_predictor__same_result_for_file_array_and_direct_call(predictor: Predictor, folder: Path) -> None:
    path = folder / "data/images/001.png"
    image = cv2.imread(str(path))
    labels = predictor(path).semantic
    with torch.no_grad():
        pixels = torch.from_numpy(image[None]).permute(0, 3, 1, 2).float()
        logits = predictor.model.encode_decode((pixels - 120) / 60, [dict(img_shape=image.shape[:2])])
        expected = nn.functional.interpolate(logits, image.shape[:2], mode="bilinear")[0].argmax(0)
    assert np.array_equal(labels, expected.numpy())
    assert np.array_equal(labels, predictor(image).semantic)


def test_predictor__folded_norms_give_the_same(predictor: Predictor, folder: Path, cfg: Config) -> None:
    folded = Predictor(cfg, folder / "good.pth", fold_norms=True)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.model.backbone.modules())
    images = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        scores = [p.model.encode_decode(images, [dict(img_shape=(32, 48))]) for p in (folded, predictor)]
    torch.testing.assert_close(*scores, rtol=1e-4, atol=1e-5)
    path = folder / "data/images/001.png"
    assert np.array_equal(folded(path).semantic, predictor(path).semantic)


@pytest.mark.parametrize("size", [(33, 47), (17, 90)])
def test_predictor__results_at_the_size_of_the_image(predictor: Predictor, size: tuple[int, int]) -> None:
    prediction = predictor(np.zeros((*size, 3), dtype=np.uint8))
    assert prediction.size == prediction.semantic.shape == size


def test_predictor__knows_classes_and_palette(predictor: Predictor) -> None:
    assert predictor.classes == list(CLASSES)
    assert predictor.palette == PALETTE


def test_predictor__works_for_generated_data(cfg: Config) -> None:
    pipeline = [dict(type="mmseg.PackSegInputs")]
    cfg.test_dataloader.dataset = dict(type="mmseg_m2f.GeneratedShapes", length=1, pipeline=pipeline)
    cfg.model.decode_head.num_classes = 8
    predictor = Predictor(cfg)
    assert len(predictor.classes) == len(predictor.palette) == 8
    assert predictor(np.zeros((40, 50, 3), dtype=np.uint8)).semantic.shape == (40, 50)


def test_predictor__works_for_stock_configs_with_a_default_scope(cfg: Config) -> None:
    cfg.default_scope = "mmseg"
    cfg.model.decode_head.type = "FCNHead"
    cfg.test_dataloader.dataset.pipeline = [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]
    assert Predictor(cfg)(np.zeros((32, 32, 3), dtype=np.uint8)).semantic.shape == (32, 32)


def test_predictor__names_an_operator_that_cannot_run_before_building(
    folder: Path, cfg: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mmcv._ext", compat._StandInExtension("mmcv._ext"))
    cfg.model.neck = dict(type="mmdet.CLRHead")
    with pytest.raises(RuntimeError, match=r"model\.neck \(CLRHead\) cannot run\. mmcv\._ext\.line_nms_forward: "):
        Predictor(cfg, folder / "good.pth")


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


def test_predictor__detector_results_in_the_size_of_the_image(photo: Path) -> None:
    prediction = Predictor(detector_config())(photo)
    bright = cv2.imread(str(photo))[..., 0] == 200
    assert prediction.kinds() == ["panoptic", "instances"]
    assert np.array_equal(prediction.panoptic, bright * 1001)
    assert np.array_equal(prediction.instances.masks, bright[None])
    assert prediction.instances.boxes_px.tolist() == [[1, 2, 11, 22]]


@pytest.fixture
def coco_config(tmp_path: Path) -> Config:
    """Names of classes stand in a file alone."""
    cfg = detector_config()
    names = [dict(id=7, name="from"), dict(id=3, name="file")]
    images = [dict(id=1, file_name="one.png", height=30, width=40)]
    (tmp_path / "train.json").write_text(json.dumps(dict(images=images, annotations=[], categories=names)))
    cfg.test_dataloader.dataset = dict(
        type="mmseg_m2f.CocoInstance",
        ann_file=str(tmp_path / "train.json"),
        data_prefix=dict(img_path="images"),
        pipeline=cfg.test_dataloader.dataset.pipeline,
        test_mode=True,
    )
    return cfg


def test_predictor__names_from_the_annotation_file(coco_config: Config) -> None:
    assert Predictor(coco_config).classes == ["from", "file"]


def test_predictor__names_from_the_checkpoint_need_no_data(coco_config: Config, tmp_path: Path) -> None:
    (tmp_path / "train.json").unlink()
    meta = dict(dataset_meta=dict(classes=("from", "training"), palette=PALETTE))
    torch.save(dict(state_dict={}, meta=meta), tmp_path / "trained.pth")
    predictor = Predictor(coco_config, tmp_path / "trained.pth")
    assert (predictor.classes, predictor.palette) == (["from", "training"], PALETTE)


def trained_on(folder: Path, out: Path, *classes: str) -> Path:
    """The weights of `folder` with the names that training would have stored."""
    weights = torch.load(folder / "good.pth")["state_dict"]
    torch.save(dict(state_dict=weights, meta=dict(dataset_meta=dict(classes=classes))), out / "named.pth")
    return out / "named.pth"


def test_predictor__numbers_classes_as_the_checkpoint_does(folder: Path, cfg: Config, tmp_path: Path) -> None:
    """The config lists the same names the other way round; what the network says does not change with it."""
    swapped = Predictor(cfg, trained_on(folder, tmp_path, "Bright", "dark"))
    assert swapped.classes == ["Bright", "dark"]
    assert [list(colour) for colour in swapped.palette] == PALETTE[::-1]
    image = folder / "data/images/001.png"
    labels = swapped(image).semantic
    assert np.array_equal(labels, Predictor(cfg, folder / "good.pth")(image).semantic)


def test_predictor__other_names_than_the_checkpoints_are_shown_and_said(
    folder: Path, cfg: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(class_agreement, "print_log", lambda text, **_: lines.append(text))
    assert Predictor(cfg, trained_on(folder, tmp_path, "night", "day")).classes == list(CLASSES)
    (line,) = lines
    assert "has other classes than checkpoint" in line
    assert "Results carry the names of test_dataloader.dataset" in line


def test_predictor__missing_names_say_where_to_put_them(coco_config: Config, tmp_path: Path) -> None:
    (tmp_path / "train.json").unlink()
    with pytest.raises(ValueError, match=r"expected class names in test_dataloader.dataset.metainfo, .*Set test_data"):
        Predictor(coco_config)


def test_predictor__our_detector_with_a_pipeline_that_needs_segments() -> None:
    options = {"model.test_cfg.semantic": True}
    cfg = load_config(ROOT / "configs/mask2former/mask2former_r18_shapes-panoptic_demo.py", options)
    predictor = Predictor(cfg, device="cpu")
    prediction = predictor(np.zeros((40, 50, 3), dtype=np.uint8))
    assert prediction.kinds() == ["panoptic", "instances", "semantic"]
    assert prediction.panoptic.shape == prediction.semantic.shape == prediction.instances.masks.shape[1:] == (40, 50)
    assert (np.diff(prediction.instances.scores) <= 0).all()


def test_predictor__model_without_results_is_named(photo: Path) -> None:
    predictor = Predictor(detector_config(results=()))
    with pytest.raises(ValueError, match=r"expected 'pred_panoptic_seg', .* of BrightObjects, got"):
        predictor(photo)


def test_stream__gives_each_image_its_own_result_in_order(predictor: Predictor, photo: Path) -> None:
    small = cv2.imread(str(photo))
    generator = np.random.default_rng(0)
    arrays = [generator.integers(0, 256, (30 + 8 * (n % 2), 40, 3), dtype=np.uint8) for n in range(7)]
    found = list(predictor.stream([photo, *arrays], batch_size=2, progress=False))
    assert [each.name for each in found] == [str(photo), *["#0"] * 7]
    for each, image in zip(found, [small, *arrays], strict=True):
        np.testing.assert_array_equal(each.pixels, image)
        np.testing.assert_array_equal(each.result.semantic, predictor(image).semantic)


def test_stream__images_of_one_size_go_through_the_model_together(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    usual = predictor.model.test_step

    def test_step(batch: dict) -> list:
        sizes.append(len(batch["inputs"]))
        return usual(batch)

    monkeypatch.setattr(predictor.model, "test_step", test_step)
    images = [np.zeros((32 + 16 * (n % 2), 48, 3), dtype=np.uint8) for n in range(6)]
    assert len(list(predictor.stream(images, batch_size=3))) == 6
    assert sizes == [3, 3]


def test_stream__is_an_iterator_that_refuses_at_once(predictor: Predictor, tmp_path: Path) -> None:
    endless = repeat(np.zeros((32, 48, 3), dtype=np.uint8))
    assert next(predictor.stream(endless)).name == "#0"
    with pytest.raises(FileNotFoundError, match="folder without any"):
        predictor.stream(tmp_path)
    with pytest.raises(ValueError, match="batch_size of at least 1"):
        predictor.stream(tmp_path, batch_size=0)


def test_stream__shows_a_bar(predictor: Predictor, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list(predictor.stream([photo, photo], progress=True))
    assert "2/2" in capsys.readouterr().err
