from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmseg_m2f.inference.predictor import Predictor
from tests.tiny_segmentation import tiny_config, write_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and a checkpoint of a model with known results: see `brightness_model`."""
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


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Dark, with a bright rectangle 10 wide and 20 high."""
    image = np.zeros((30, 40, 3), dtype=np.uint8)
    image[2:22, 1:11] = 200
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos/one.png"), image)
    return tmp_path / "photos/one.png"
