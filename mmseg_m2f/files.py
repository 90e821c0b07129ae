"""Writing files: each appears complete or not at all, whatever interrupts the program."""

import json
import os
from io import BytesIO
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from PIL import Image


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Put a complete new file in the place of the old one, if any; creates the folders above it.

    Raises:
        OSError: Disk, permissions or limits do not allow it; `filename` is `path`.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(content)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # the system does not name it when writing


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
        """Write `obj` beside the file, then put it in the file's place."""
        replace_file(filepath, obj)


register_backend("mmseg_m2f.atomic", AtomicBackend)
