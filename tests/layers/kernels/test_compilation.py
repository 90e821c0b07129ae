import ctypes
import errno
import logging
import os
import pwd
import shutil
from pathlib import Path

import pytest

from mmseg_m2f.layers.kernels import compilation
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


def said(source: Path, caplog: pytest.LogCaptureFixture) -> str:
    source.write_text('extern "C" int one() { return 1; }\n')
    with caplog.at_level(logging.WARNING, logger="mmseg_m2f"):
        assert compilation.load_library.__wrapped__(source) is None
    return caplog.text


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_load_library__a_cache_that_is_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def refuse(compiler: str, source: Path, library: Path) -> None:
        raise OSError(number, "no", str(library.parent))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(compilation, "_compile", refuse)
    text = said(tmp_path / "one.cpp", caplog)
    assert str(tmp_path / "cache/mmseg_m2f") in text
    assert "Set XDG_CACHE_HOME to a folder that you may write to." in text


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
def test_load_library__no_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(uid: int) -> object:
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert "Set XDG_CACHE_HOME" in said(tmp_path / "one.cpp", caplog)
