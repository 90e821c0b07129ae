"""Files appear complete or not at all."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.fileio import get_file_backend
from PIL import Image

# Importing it registers the backend.
from mmseg_m2f.files import folder_of_unfinished, locked, remove_unfinished, replace_file, save_png, unfinished_file


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


def test_save_png__leaves_no_unfinished_file(tmp_path: Path) -> None:
    for _ in range(2):
        save_png(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_replace_file__names_the_file_that_the_disk_has_no_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as raised:
        replace_file(tmp_path / "a.png", b"new")
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "a.png"))


@pytest.mark.parametrize("context", [unfinished_file, folder_of_unfinished])
def test_unfinished__names_what_the_disk_has_no_room_for(tmp_path: Path, context: Callable) -> None:
    with pytest.raises(OSError, match="No space left") as raised, context(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))
    assert not [*tmp_path.rglob("*.tmp"), *tmp_path.rglob(".*")]


def test_replace_file__names_the_file_below_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file/a.png"):
        replace_file(tmp_path / "file/a.png", b"new")


@pytest.mark.parametrize("name", [f"{'n' * 251}.png", f"{'é' * 125}x.png"])
def test_replace_file__longest_names(tmp_path: Path, name: str) -> None:
    replace_file(tmp_path / name, b"new")
    with unfinished_file(tmp_path / "sub" / name) as unfinished:
        assert unfinished.suffix == ".png"
        unfinished.write_bytes(b"new")
    assert [path.name for path in tmp_path.rglob("*.png")] == [name, name]


def test_replace_file__syncs_file_and_folder_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    replace_file(tmp_path / "a.pth", b"new", durable=True)
    assert synced == [str(tmp_path / f".a.pth.{os.getpid()}.tmp"), str(tmp_path)]


def test_remove_unfinished__leaves_files_of_programs_that_run(tmp_path: Path) -> None:
    for name in (f".a.png.{os.getppid()}.tmp", ".b.png.999999999.tmp", f".iter_4.pth.{os.getppid()}.tmp", "c.png"):
        (tmp_path / name).write_bytes(b"")
    remove_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [f".a.png.{os.getppid()}.tmp", "c.png"]


def test_locked__refuses_another_process(tmp_path: Path) -> None:
    with locked(tmp_path / "run/lock", remedy="take another folder"):
        child = os.fork()
        if not child:
            try:
                with locked(tmp_path / "run/lock", remedy="take another folder"):
                    os._exit(1)
            except ValueError as error:
                os._exit(0 if f"process {os.getppid()} is at" in str(error) else 2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_unfinished_file__appears_at_the_end(tmp_path):
    path = tmp_path / "folder" / "map.tif"
    with unfinished_file(path) as unfinished:
        unfinished.write_bytes(b"half")
        assert not path.exists()
        assert unfinished.suffix == ".tif"
    assert path.read_bytes() == b"half"
    assert [each.name for each in path.parent.iterdir()] == ["map.tif"]


def test_unfinished_file__nothing_is_left_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), unfinished_file(tmp_path / "map.tif") as unfinished:
        raise ZeroDivisionError(unfinished.write_bytes(b"half"))
    assert [*tmp_path.iterdir()] == []
