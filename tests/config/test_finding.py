"""Configs by name and by path."""

import os
from pathlib import Path

import pytest

from mmseg_m2f.config.finding import configs_folder, find_config, published_configs

ROOT = Path(__file__).parents[2]


def test_find_config__by_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = ROOT / "configs/mask2former/mask2former_r18_shapes_demo.py"
    assert find_config("mask2former_r18_shapes_demo").samefile(expected)
    assert find_config("mask2former_r18_shapes_demo.py").samefile(expected)


def test_find_config__a_file_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "mask2former_r18_shapes_demo.py"
    own.write_text("")
    assert find_config(own.name).samefile(own)
    assert find_config(str(own)) == own


@pytest.mark.parametrize("config", ["mask2former_r18_shape_demo", "configs/mask2former_r18_shape_demo.py"])
def test_find_config__unknown_ones_name_the_nearest(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "tests")
    with pytest.raises(FileNotFoundError, match=r"working directory .*Nearest: mask2former_r18_shapes_demo, "):
        find_config(config)


def test_find_config__nearest_of_a_folder_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "streets_by_night.py").write_text("")
    with pytest.raises(FileNotFoundError, match=rf"Nearest: {tmp_path}/streets_by_night\.py"):
        find_config(tmp_path / "street_by_night.py")


def test_find_config__no_path_into_the_published_ones_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"Nearest: mask2former_r18_shapes_demo"):
        find_config("configs/mask2former/mask2former_r18_shapes_demo.py")


def test_published_configs__are_all_leaves_under_different_names() -> None:
    leaves = sorted((ROOT / "configs").glob("[!_]*/*.py"))
    assert [os.path.realpath(path) for path in published_configs().values()] == [os.path.realpath(p) for p in leaves]
    assert (configs_folder() / "_base_/runtime.py").is_file()
