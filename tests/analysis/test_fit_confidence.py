"""The fit of a checkpoint's temperatures, and `mmseg_m2f calibrate`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmseg_m2f.analysis.fit_confidence import PixelScores, _fit_pixels, fit_confidence
from mmseg_m2f.command_line.main import main
from mmseg_m2f.config.load import load_config
from mmseg_m2f.registry import MODELS
from tests.analysis.leaves import LEAVES, OPTIONS, write_weights
from tests.tiny_segmentation import tiny_config, write_config, write_dataset

SMALL = OPTIONS | {"test_dataloader.batch_size": 2}


@pytest.fixture(scope="module")
def panoptic(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_weights("panoptic", tmp_path_factory.mktemp("weights"))


def test_calibrate__writes_a_leaf_and_a_report(panoptic, tmp_path: Path, capsys):
    changed = [f"{key}={value}" for key, value in SMALL.items()]
    leaf = LEAVES["panoptic"]
    main(["calibrate", leaf, panoptic, "--split", "test", "--out", str(tmp_path), "--cfg-options", *changed])
    report = json.loads((tmp_path / "calibration.json").read_text())
    assert (report["split"], report["images"]) == ("test", 3)
    assert [fit["key"] for fit in report["fits"]] == ["temperature", "score_temperature"]
    pixels = report["fits"][0]
    assert pixels["value"] > 1  # random weights are sure of what is wrong
    assert pixels["after"]["ECE"] < pixels["before"]["ECE"]
    for fit in report["fits"]:
        assert fit["after"]["accuracy"] == fit["before"]["accuracy"]
    test_cfg = load_config(tmp_path / "calibrated.py").model.test_cfg
    printed = capsys.readouterr().out
    for fit in report["fits"]:
        assert test_cfg[fit["key"]] == pytest.approx(fit["value"], abs=1e-4)
        assert f"model.test_cfg.{fit['key']}={fit['value']:.4f}" in printed


def test_fit_confidence__images_are_fitted_or_measured(panoptic):
    fits = fit_confidence(LEAVES["panoptic"], panoptic, SMALL, split="test", num_images=2, pixels_per_image=50).fits
    assert fits[0].num_fitted == 50  # of the first image; the second one is measured


def test_fit_confidence__of_a_segmentor_leaves_it_as_it_was(tmp_path: Path):
    weights = write_weights("semantic", tmp_path)
    fit = fit_confidence(LEAVES["semantic"], weights, SMALL, split="test")
    assert [each.key for each in fit.fits] == ["temperature"]
    assert fit.fits[0].after["ECE"] < fit.fits[0].before["ECE"]
    again = fit_confidence(LEAVES["semantic"], weights, SMALL, split="test")
    assert again.fits[0] == fit.fits[0]


def test_fit_pixels__every_other_image_is_measured():
    right = PixelScores(
        np.array([[0.9, 0.05], [0.05, 0.9], [0.9, 0.05], [0.9, 0.05]], np.float32), np.array([0, 1, 0, 1])
    )
    wrong = PixelScores(right.scores, 1 - right.truth)
    fit = _fit_pixels([right, wrong])
    assert fit.before["accuracy"] == 0.25
    assert _fit_pixels([right, right]).value == fit.value
    assert fit.before["confidence"] == pytest.approx(0.9, abs=1e-6)


@pytest.mark.filterwarnings("ignore:calibrate")
@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"val_dataloader": None, "val_cfg": None, "val_evaluator": None}, {}, "expected a val_dataloader"),
        ({"val_dataloader.dataset.seed": 0}, {}, "got those of training in val_dataloader.dataset"),
        ({}, dict(split="test", num_images=1), "expected at least 2 images, .*got --images 1 --pixels 1000"),
        ({}, dict(split="test", pixels_per_image=0), "1 pixel of each, got --images 200 --pixels 0"),
        ({"test_dataloader.dataset.length": 1}, dict(split="test"), "expected at least 2 images of test_dataloader"),
        (
            {"model.test_cfg.instance": False, "model.test_cfg.semantic": False},
            dict(split="test"),
            "panoptic maps alone",
        ),
    ],
    ids=["no data", "training data", "few images", "no pixel", "one image", "no result"],
)
def test_fit_confidence__refuses(panoptic, options, arguments, message):
    with pytest.raises(ValueError, match=f"calibrate: .*{message}"):
        fit_confidence(LEAVES["panoptic"], panoptic, SMALL | options, **arguments)


def test_fit_confidence__refuses_models_without_such_scores(tmp_path: Path):
    write_dataset(tmp_path / "data")
    cfg = tiny_config(tmp_path / "data")
    checkpoint = str(tmp_path / "model.pth")
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), checkpoint)
    write_dataset(tmp_path / "other")
    options = {"test_dataloader.dataset.data_root": str(tmp_path / "other")}
    with pytest.raises(ValueError, match="expected a model of type MaskSegmentor or MaskDetector.*got EncoderDecoder"):
        fit_confidence(write_config(cfg, tmp_path / "leaf.py"), checkpoint, options, split="test")


def test_calibrate__says_what_is_wrong(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", LEAVES["semantic"], "none.pth"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Error: Checkpoint none.pth does not exist")
