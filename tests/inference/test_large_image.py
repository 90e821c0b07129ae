import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from PIL import Image
from pycocotools import mask as run_lengths
from scipy import ndimage
from torch import Tensor

from mmseg_m2f.inference import Predictor
from mmseg_m2f.inference.large_image import predict_large
from mmseg_m2f.registry import MODELS

CLASSES = ("water", "house", "road")
THING = 1  # of the three classes; the others are stuff
SIZE = (150, 210)

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of pycocotools
]


@MODELS.register_module(name="ReadsColours")
class ReadsColours(BaseModel):
    """A model without errors: red is the class, green the number of the object. It remembers what it saw."""

    def __init__(self, results: tuple[str, ...], test_cfg: dict) -> None:
        super().__init__(data_preprocessor=dict(type="mmdet.DetDataPreprocessor", bgr_to_rgb=True))
        self.results, self.test_cfg = results, ConfigDict(test_cfg)
        self.sizes: set[tuple[int, int]] = set()

    def forward(self, inputs: Tensor, data_samples: list[BaseDataElement], mode: str) -> list[BaseDataElement]:
        assert self.test_cfg.mode == "whole"
        for image, sample in zip(inputs, data_samples, strict=True):
            self.sizes.add(tuple(image.shape[1:]))
            red, green, _ = torch.nn.functional.interpolate(image[None], sample.ori_shape)[0].long()
            ids = green[red == THING].unique()
            if "semantic" in self.results:
                sample.pred_sem_seg = PixelData(sem_seg=red[None])
            if "panoptic" in self.results:
                numbers = torch.searchsorted(ids, green) + 1
                sample.pred_panoptic_seg = PixelData(
                    sem_seg=torch.where(red == THING, THING + 1000 * numbers, red)[None]
                )
            if "instances" in self.results:
                masks = (green == ids[:, None, None]) & (red == THING)
                sample.pred_instances = InstanceData(
                    labels=torch.full_like(ids, THING),
                    scores=torch.full(ids.shape, 0.9),
                    bboxes=torch.zeros(len(ids), 4),
                    masks=masks,
                )
        return data_samples


def predictor(*results: str, **test_cfg: object) -> Predictor:
    windows = dict(mode="slide", crop_size=(64, 48), stride=(32, 24)) | test_cfg
    pipeline = [
        dict(type="mmengine.LoadImageFromFile"),
        dict(type="mmdet.Resize", scale=(32, 32)),
        dict(type="mmdet.PackDetInputs"),
    ]
    dataset = dict(type="mmdet.CocoDataset", metainfo=dict(classes=CLASSES), pipeline=pipeline)
    model = dict(type="mmseg_m2f.ReadsColours", results=results, test_cfg=windows)
    return Predictor(Config(dict(model=model, test_dataloader=dict(dataset=dataset))), device="cpu")


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    """Connected objects of many sizes, each with its number, in front of two kinds of stuff."""
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=SIZE), 5)
    objects, count = ndimage.label(noise > 0.3 * noise.std())
    assert 20 < count < 256
    stuff = np.where(np.arange(SIZE[1]) < 100, 0, 2)
    colours = np.stack([np.where(objects > 0, THING, stuff), objects, np.zeros_like(objects)], -1)
    path = tmp_path_factory.mktemp("large") / "scene.tif"
    Image.fromarray(colours.astype(np.uint8)).save(path)
    return path


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1).astype(int)


def test_predict_large__equals_the_truth(image, tmp_path):
    predict = predictor("semantic", "panoptic", "instances")
    written = predict_large(predict, image, tmp_path)
    assert [path.name for path in written] == [
        "scene_labels.tif", "scene_panoptic.tif", "scene_panoptic.json", "scene_instances.json",
    ]  # fmt: skip
    assert predict.model.sizes == {(64, 48)}  # nothing but windows, and they are not resized
    truth = np.asarray(Image.open(image)).astype(int)
    classes, numbers = truth[..., 0], truth[..., 1]
    np.testing.assert_array_equal(read(written[0]), classes)
    panoptic, content = read(written[1]), json.loads(written[2].read_text())
    pairs = np.unique(np.stack([panoptic.ravel(), (numbers * 10 + classes).ravel()]), axis=1)
    assert len(pairs[0]) == len(set(pairs[0])) == len(set(pairs[1])) == len(content["segments_info"])
    for segment in content["segments_info"]:
        mask = panoptic == segment["id"]
        assert segment["area"] == mask.sum()
        assert {segment["category_id"]} == set(classes[mask])
        assert segment["isthing"] == (segment["category_id"] == THING)
    found = [run_lengths.decode(each["segmentation"]).astype(bool) for each in json.loads(written[3].read_text())]
    assert {mask.tobytes() for mask in found} == {(numbers == n + 1).tobytes() for n in range(numbers.max())}
    assert len(found) == numbers.max()


def test_predict_large__scale(image, tmp_path):
    predict = predictor("semantic", scale=0.5)
    (labels,) = predict_large(predict, image, tmp_path)
    assert predict.model.sizes == {(64, 48)}  # of 128 × 96 pixels in the file
    assert (read(labels) == np.asarray(Image.open(image))[..., 0]).mean() > 0.8


def test_predict_large__one_scale_alone(image, tmp_path):
    with pytest.raises(ValueError, match=r"expected one model.test_cfg.scale, got \[0.5, 1.0\].*Set window_scale"):
        predict_large(predictor("semantic", scale=[0.5, 1.0]), image, tmp_path)


def test_predict_large__needs_windows(image, tmp_path):
    with pytest.raises(ValueError, match=r"got mode 'whole'. Set window_size"):
        predict_large(predictor("semantic", mode="whole"), image, tmp_path)


def test_predict_large__settings_come_back_and_nothing_is_left(image, tmp_path):
    predict = predictor()
    with pytest.raises(ValueError, match="predicts nothing|expected 'pred_panoptic_seg'"):
        predict_large(predict, image, tmp_path)
    assert predict.model.test_cfg.mode == "slide"
    assert [*tmp_path.iterdir()] == []
