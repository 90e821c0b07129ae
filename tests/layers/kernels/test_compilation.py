"""Kernels that cannot be kept say where they could."""

import errno
import logging
import pwd
import shutil
from pathlib import Path

import pytest

from mmseg_m2f.layers.kernels import compilation

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="there is nothing to keep without a C++ compiler"
)


def said(source: Path, caplog: pytest.LogCaptureFixture) -> str:
    source.write_text('extern "C" int one() { return 1; }\n')
    with caplog.at_level(logging.WARNING, logger="mmseg_m2f"):
        assert compilation.load_library.__wrapped__(source) is None
    return caplog.text


@needs_compiler
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


@needs_compiler
def test_load_library__no_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(uid: int) -> object:
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert "Set XDG_CACHE_HOME" in said(tmp_path / "one.cpp", caplog)
