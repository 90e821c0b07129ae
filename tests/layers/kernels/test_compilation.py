import ctypes
import logging
import os
import shutil
from pathlib import Path

import pytest

from mmseg_m2f.layers.kernels.compilation import load_library

COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
SOURCE = 'extern "C" int twice(int value) { return 2 * value; }'


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load_library.cache_clear()
    return tmp_path / "cache/mmseg_m2f"


def write(path: Path, text: str = SOURCE) -> Path:
    path.write_text(text)
    return path


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
def test_load_library__compiles_and_keeps_the_library(tmp_path: Path, own_cache: Path) -> None:
    library = load_library(write(tmp_path / "twice.cpp"))
    assert isinstance(library, ctypes.CDLL)
    assert library.twice(21) == 42
    (kept,) = own_cache.iterdir()
    written = kept.stat().st_mtime_ns
    load_library.cache_clear()
    assert load_library(tmp_path / "twice.cpp").twice(4) == 8
    assert kept.stat().st_mtime_ns == written


def test_load_library__says_once_why_it_could_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    source = write(tmp_path / "twice.cpp")
    with caplog.at_level(logging.WARNING, "mmseg_m2f"):
        assert load_library(source) is None
        assert load_library(source) is None
    (line,) = caplog.messages
    assert line.startswith("twice.cpp was not compiled: ")
    assert "no-such-compiler" in line
    assert "Install a C++ compiler, or set CXX to one." in line
