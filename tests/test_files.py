"""Files appear complete or not at all."""

import os
from pathlib import Path

import pytest
from mmengine.fileio import get_file_backend


def test_atomic_backend__keeps_the_old_file_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = get_file_backend(backend_args=dict(backend="mmseg_m2f.atomic"))
    backend.put(b"old", tmp_path / "sub/file")

    def interrupted(path: Path, data: bytes) -> None:
        with open(path, "wb") as file:
            file.write(data[:1])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backend.put(b"new", tmp_path / "sub/file")
    assert (tmp_path / "sub/file").read_bytes() == b"old"
    assert os.listdir(tmp_path / "sub") == ["file"]
