"""The check of data folders before anything is built."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmseg_m2f.config.data_paths import check_data_paths
from tests.tiny_segmentation import tiny_config, write_dataset


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    return tiny_config(tmp_path / "data")


def test_check_data_paths__passes_existing_folders(cfg: Config, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", count=1)
    check_data_paths(cfg)


def test_check_data_paths__names_key_place_and_option(cfg: Config, tmp_path: Path) -> None:
    cfg.train_dataloader.dataset = dict(type="mmengine.RepeatDataset", times=2, dataset=cfg.train_dataloader.dataset)
    cfg.data_root = str(tmp_path / "data")
    with pytest.raises(FileNotFoundError) as raised:
        check_data_paths(cfg)
    message = str(raised.value)
    assert message.startswith("train_dataloader.dataset.dataset.data_root: expected an existing path")
    assert str(tmp_path / "data") in message
    assert str(Path.cwd()) in message
    assert "--cfg-options data_root=PATH" in message


def test_check_data_paths__names_the_missing_prefix_and_what_lies_beside(cfg: Config, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", count=1)
    cfg.val_dataloader.dataset.data_prefix.seg_map_path = "lables"
    with pytest.raises(FileNotFoundError, match=r"val_dataloader.dataset.data_prefix.seg_map_path.*images, labels"):
        check_data_paths(cfg)


def test_check_data_paths__names_the_wrong_suffix(cfg: Config, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", count=1)
    cfg.train_dataloader.dataset.pop("img_suffix")  # the class then looks for .jpg
    with pytest.raises(FileNotFoundError, match=r"expected files '\*.jpg' below .*/images', got only .png. Set train_"):
        check_data_paths(cfg)


def test_check_data_paths__looks_at_the_needed_loops_only(cfg: Config, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", count=1)
    cfg.train_dataloader.dataset.data_root = str(tmp_path / "elsewhere")
    check_data_paths(cfg, loops=["test"])


@pytest.mark.parametrize("root", ["s3://bucket/data", None, ""])
def test_check_data_paths__passes_over_remote_and_rootless(cfg: Config, root: str | None) -> None:
    for loop in ("train", "val", "test"):
        cfg[f"{loop}_dataloader"].dataset.data_root = root
    check_data_paths(cfg)
