"""Modules of a user's own."""

import sys
from pathlib import Path

import pytest

from mmseg_m2f.config.load import load_config


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize("beside", [True, False])
def test_load_config__finds_modules_beside_the_config_and_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    name = f"own_part_{beside}"
    ((tmp_path / "configs" if beside else tmp_path) / f"{name}.py").write_text("LOADED = True\n")
    config = tmp_path / "configs/mine.py"
    config.write_text(f'custom_imports = dict(imports=["{name}"], allow_failed_imports=False)\nmodel = dict()\n')
    monkeypatch.chdir(tmp_path / "elsewhere" if beside else tmp_path)
    load_config(config)
    assert sys.modules[name].LOADED


def test_load_config__a_module_that_is_nowhere(tmp_path: Path) -> None:
    config = tmp_path / "mine.py"
    config.write_text('custom_imports = dict(imports=["no_such_part"], allow_failed_imports=False)\n')
    with pytest.raises(
        KeyError, match=rf"custom_imports: expected the module 'no_such_part' beside.*{tmp_path}.*PYTHONPATH"
    ):
        load_config(config)


def test_load_config__a_module_that_fails_keeps_its_error(tmp_path: Path) -> None:
    (tmp_path / "own_broken.py").write_text("from math import no_such_function\n")
    config = tmp_path / "mine.py"
    config.write_text('custom_imports = dict(imports=["own_broken"], allow_failed_imports=False)\n')
    with pytest.raises(ImportError, match="no_such_function|own_broken"):
        load_config(config)
