"""Finding ingredients by name or path."""

from pathlib import Path

import pytest

from mmseg_m2f.config.ingredients import find_ingredient
from tests.command_line import ROOT


def test_find_ingredient__beside_the_config_before_the_package(tmp_path: Path) -> None:
    own = tmp_path / "_base_/backbones/r50.py"
    own.parent.mkdir(parents=True)
    own.write_text("")
    beside = tmp_path / "method/leaf.py"
    assert find_ingredient("backbones", "r50", beside=beside, option="backbone") == own
    assert find_ingredient("backbones", str(own), beside=None, option="backbone") == own
    expected = ROOT / "configs/_base_/datasets/shapes.py"
    assert find_ingredient("datasets", "shapes", beside=beside, option="data").samefile(expected)


def test_find_ingredient__names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"data=shape: expected the name of a file in _base_/datasets.*Nearest: shapes"
    ):
        find_ingredient("datasets", "shape", beside=tmp_path / "a.py", option="data")
    with pytest.raises(FileNotFoundError, match=r"data=none.py: expected an ingredient file"):
        find_ingredient("datasets", "none.py", beside=None, option="data")
