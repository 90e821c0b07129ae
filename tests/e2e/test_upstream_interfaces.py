"""mmseg's, mmdet's and mmengine's own interfaces, called on our models as their documentation does."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.hub import get_config, get_model
from mmengine.registry import MODELS, VISUALIZERS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmseg.apis import MMSegInferencer, inference_model, init_model
from mmseg.structures import SegDataSample

from mmseg_m2f.inference import Predictor
from tests.command_line import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore")]  # upstream warns of its own defaults

SEMANTIC = "mask2former/mask2former-tiny_r18_camvid-240x320_cpu"
OBJECTS = "mask2former/mask2former-tiny_r18_dsb2018-256_cpu"
BOTH = pytest.mark.parametrize("name", [SEMANTIC, OBJECTS], ids=["semantic", "objects"])


class Trained(NamedTuple):
    """A config, a checkpoint of random weights, and a picture as file and as BGR array."""

    config: str
    checkpoint: str
    image: str
    pixels: np.ndarray


def config_file(name: str) -> str:
    return str(ROOT / "configs" / f"{name}.py")


def write_trained(name: str, folder: Path) -> Trained:
    torch.manual_seed(0)
    cfg = Config.fromfile(config_file(name))
    names = [f"class {number}" for number in range(cfg.num_classes)]
    palette = [(number, 9 * number, 200) for number in range(cfg.num_classes)]
    state_dict = MODELS.build(cfg.model).state_dict()
    torch.save(
        dict(state_dict=state_dict, meta=dict(dataset_meta=dict(classes=names, palette=palette))), folder / "model.pth"
    )
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    cv2.imwrite(str(folder / "image.png"), pixels)
    return Trained(config_file(name), str(folder / "model.pth"), str(folder / "image.png"), pixels)


def drawn_sample(*, is_detector: bool) -> BaseDataElement:
    mask = torch.zeros(1, 40, 50, dtype=torch.bool)
    mask[:, 10:30, 10:30] = True
    if not is_detector:
        return SegDataSample(pred_sem_seg=PixelData(data=mask.long()))
    objects = InstanceData(
        masks=mask, bboxes=torch.tensor([[10.0, 10, 30, 30]]), labels=torch.tensor([1]), scores=torch.tensor([0.9])
    )
    return DetDataSample(pred_instances=objects)


@pytest.fixture(scope="module")
def semantic(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return write_trained(SEMANTIC, tmp_path_factory.mktemp("semantic"))


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return write_trained(OBJECTS, tmp_path_factory.mktemp("objects"))


def expected_labels(trained: Trained) -> np.ndarray:
    return Predictor(trained.config, trained.checkpoint, device="cpu")(trained.image).semantic


def expected_scores(trained: Trained) -> np.ndarray:
    """In ascending order: the predictor sorts them, mmdet does not."""
    return np.sort(Predictor(trained.config, trained.checkpoint, device="cpu")(trained.image).instances.scores)


def test_inference_model__file_and_array_give_the_predictors_labels(semantic: Trained) -> None:
    model = init_model(semantic.config, semantic.checkpoint, device="cpu")
    expected = expected_labels(semantic)
    for image in (semantic.image, semantic.pixels):
        assert np.array_equal(inference_model(model, image).pred_sem_seg.data[0].numpy(), expected)
    assert len(inference_model(model, [semantic.pixels] * 2)) == 2


def test_mmseg_inferencer__gives_the_predictors_labels_and_pictures(semantic: Trained, tmp_path: Path) -> None:
    inferencer = MMSegInferencer(semantic.config, semantic.checkpoint, device="cpu", show_progress=False)
    found = inferencer([semantic.image, semantic.pixels], batch_size=2, out_dir=str(tmp_path), return_vis=True)
    expected = expected_labels(semantic)
    assert all(np.array_equal(labels, expected) for labels in found["predictions"])
    assert all((picture != semantic.pixels[..., ::-1]).any() for picture in found["visualization"])
    assert (tmp_path / "vis/image.png").is_file()
    assert np.array_equal(cv2.imread(str(tmp_path / "pred/00000000_pred.png"), cv2.IMREAD_UNCHANGED), expected)


def test_inference_detector__file_and_array_give_the_predictors_objects(objects: Trained) -> None:
    model = init_detector(objects.config, objects.checkpoint, device="cpu")
    assert len(model.dataset_meta["classes"]) == model.decode_head.num_classes
    expected = expected_scores(objects)
    assert len(expected)
    for image in (objects.image, objects.pixels):
        scores = np.sort(inference_detector(model, image).pred_instances.scores.numpy())
        assert np.allclose(scores, expected, atol=1e-5)


def test_det_inferencer__gives_the_predictors_objects_and_pictures(objects: Trained, tmp_path: Path) -> None:
    inferencer = DetInferencer(objects.config, objects.checkpoint, device="cpu", show_progress=False)
    found = inferencer(
        [objects.image, objects.pixels], batch_size=2, out_dir=str(tmp_path), pred_score_thr=0.0, return_vis=True
    )
    expected = expected_scores(objects)
    assert all(np.allclose(np.sort(each["scores"]), expected, atol=1e-5) for each in found["predictions"])
    assert all((picture != objects.pixels[..., ::-1]).any() for picture in found["visualization"])
    assert (tmp_path / "vis/image.png").is_file()


COUNT = """
import sys, mmseg_m2f
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from mmengine.registry import MODELS
model = MODELS.build(Config.fromfile(sys.argv[1]).model).eval()
found = get_model_complexity_info(model, (3, 64, 64))
backbone = get_model_complexity_info(model.backbone, (3, 64, 64), show_table=False, show_arch=False)
assert found["params"] == sum(parameter.numel() for parameter in model.parameters())
assert found["flops"] > backbone["flops"]
assert "decode_head" in found["out_table"]
"""


@BOTH
def test_get_model_complexity_info__counts_every_parameter_and_the_head(name: str) -> None:
    """In a process without checks of shapes: sizes are tensors while a model is traced."""
    done = subprocess.run([sys.executable, "-c", COUNT, config_file(name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@BOTH
def test_visualizer__is_built_from_the_config_and_draws(name: str) -> None:
    cfg = Config.fromfile(config_file(name))
    settings = cfg.visualizer
    first, second = VISUALIZERS.build(settings), VISUALIZERS.build(settings)
    assert first is not second
    blank = np.zeros((40, 50, 3), np.uint8)
    first.dataset_meta = dict(classes=["a", "b"], palette=[(0, 200, 0), (0, 0, 200)])
    sample = drawn_sample(is_detector="Detector" in cfg.model.type)
    first.add_datasample("result", blank, sample, draw_gt=False)
    assert (first.get_image() != blank).any()


@BOTH
def test_runner__from_cfg_names_the_visualizer_after_the_run(name: str, tmp_path: Path) -> None:
    cfg = Config.fromfile(config_file(name))
    cfg.work_dir = str(tmp_path)
    runner = Runner.from_cfg(cfg)
    assert runner.visualizer.instance_name == runner.experiment_name
    assert type(runner.model).__name__ == cfg.model.type.rpartition(".")[2]


def test_hub__builds_mmdets_models_and_refuses_ours() -> None:
    """As docs/upstream.md says: the hub takes names of a fixed list of packages."""
    name = "mmdet::retinanet/retinanet_r18_fpn_1x_coco.py"
    model = get_model(name)
    assert type(model).__name__ == get_config(name).model.type == "RetinaNet"
    sample = DetDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0)))
    with torch.no_grad():
        (found,) = model.eval().predict(torch.zeros(1, 3, 64, 64), [sample])
    assert found.pred_instances.bboxes.shape[1] == 4
    with pytest.raises(AssertionError, match="does not support to load mmseg_m2f config"):
        get_config(f"mmseg_m2f::{SEMANTIC}.py")
