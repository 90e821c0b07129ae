"""Writing files: each appears complete or not at all, whatever interrupts the program."""

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from PIL import Image

from mmseg_m2f.errors import InvalidValueError

_MAX_NAME_BYTES, _ADDED_BYTES = 255, 24  # of a file name on common file systems; what unfinished files add
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.tmp")  # what `replace_file` writes before it renames


def replace_file(path: str | os.PathLike[str], content: bytes, *, durable: bool = False) -> None:
    """Put a complete new file in the place of the old one, if any; creates the folders above it.

    Args:
        durable: Return only when file and folder are on the disk (`fsync`), so that a power failure does not lose the
            file either. It takes milliseconds a file on a hard disk.

    Raises:
        OSError: Disk, permissions or limits do not allow it; `filename` is `path`.
    """
    path = Path(path)
    unfinished = path.with_name(f".{_end_of(path.name)}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(content)
            if durable:
                _sync(unfinished)
            unfinished.replace(path)
            if durable:
                _sync(path.parent)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # the system does not name it when writing


def remove_unfinished(folder: str | os.PathLike[str]) -> list[Path]:
    """Delete what interrupted programs left beside the files of a folder, and give the paths.

    Only for a folder that no other program writes checkpoints to. Other unfinished files stay where the process that
    writes them is alive.
    """
    found = [(path, match) for path in Path(folder).glob(".*.tmp") if (match := _UNFINISHED.fullmatch(path.name))]
    stale = [p for p, match in found if match["name"].endswith(".pth") or not _is_alive(int(match["process"]))]
    for path in stale:
        path.unlink(missing_ok=True)
    return stale


@contextmanager
def locked(path: str | os.PathLike[str], *, remedy: str) -> Iterator[None]:
    """Hold the lock file `path`; the system lets go of it when the process ends in any way.

    Args:
        remedy: What to do instead of waiting for the other process: the end of the message.

    Raises:
        ValueError: Another process holds it.
    """
    import fcntl  # not on Windows

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            raise InvalidValueError(
                f"{path.parent}: expected a run that nobody is doing, got one that process {file.read().strip()} is "
                f"at. Wait until it has finished, end it, or {remedy}."
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextmanager
def folder_of_unfinished(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder inside `folder` for files that other libraries write; they move to `folder` where nothing is raised.

    Each appears complete, in alphabetical order. Otherwise `folder` stays as it was.

    Raises:
        OSError: Disk, permissions or limits do not allow it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _named(folder), tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as name:
        yield Path(name)
        for path in sorted(Path(name).iterdir()):
            path.replace(folder / path.name)


@contextmanager
def unfinished_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to, by parts, that takes the place of `path` at the end; after an error nothing is left.

    Raises:
        OSError: Disk, permissions or limits do not allow it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(
        f".{os.getpid()}.{_end_of(path.name)}"
    )  # with its suffix, which tells some writers the format
    try:
        with _named(path):
            yield unfinished
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def save_json(content: object, path: str | os.PathLike[str], *, indent: int | None = None) -> None:
    """Write a JSON file in one step; numpy's and torch's numbers are written as floats."""
    replace_file(path, (json.dumps(content, indent=indent, default=float) + "\n").encode())


def save_png(picture: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write a PNG file in one step."""
    content = BytesIO()
    picture.save(content, format="PNG")
    replace_file(path, content.getvalue())


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL or names another storage (`s3://`, `torchvision://`), whose files are not checked."""
    return "://" in str(path) or str(path).startswith("s3:")


class AtomicBackend(LocalBackend):
    """mmengine's backend for local files, writing as `replace_file` does. `backend="mmseg_m2f.atomic"` chooses it."""

    def put(self, obj: bytes, filepath: str | os.PathLike[str]) -> None:
        """Write `obj` beside the file, then put it in the file's place; on return it is on the disk."""
        replace_file(filepath, obj, durable=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name a path in faults of the disk that the system does not name: those of writing."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _end_of(name: str) -> str:
    """A file name as long as leaves room for what unfinished files add; its end has the suffix."""
    return os.fsencode(name)[_ADDED_BYTES - _MAX_NAME_BYTES :].decode(errors="ignore")


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_alive(process: int) -> bool:
    """Whether another process has that number."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


register_backend("mmseg_m2f.atomic", AtomicBackend)
