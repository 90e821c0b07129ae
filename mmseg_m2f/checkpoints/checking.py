"""Checking a checkpoint file before anything reads it: complete, and nothing but tensors and plain values."""

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch

from mmseg_m2f import compat
from mmseg_m2f.errors import InvalidValueError, MissingFileError

_DEEPEST = 100  # levels of containers; training writes fewer than ten
_EXPORTED = (".onnx", ".pt2", ".xml")


def check_checkpoint(path: str | os.PathLike[str]) -> Mapping[str, object]:
    """Check that a checkpoint file is complete and holds weights only, and give what it holds.

    Nothing in the file is executed. Tensors stay on disk until they are used, where the format allows. torch.save
    writes a CRC-32 of each tensor; the file is read once to compare them.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Truncated or altered, no checkpoint, or with objects that only unsafe loading could restore.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(missing_file_message(path))
    if path.suffix in _EXPORTED:
        raise InvalidValueError(
            f"Checkpoint {path} is an exported file; expected weights to load (.pth). Exported files predict and are "
            "tested, but cannot be trained or loaded: take the checkpoint that it was exported from."
        )
    compat.allow_safe_checkpoint_globals()
    size = f"{path.stat().st_size:,} bytes"
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    if is_archive and not _has_end(path):
        raise InvalidValueError(_truncated_message(path, size, "its end is missing"))
    if is_archive and (damaged := _damaged_part(path)) is not None:
        raise InvalidValueError(
            f"Checkpoint {path} ({size}) is damaged: {damaged}. Expected the bytes that torch.save wrote. Copy or "
            "download it again, or take an earlier one from the same folder."
        )
    content = _load_weights(path, size, mmap=is_archive)
    if not isinstance(content, Mapping):
        raise InvalidValueError(
            f"Checkpoint {path} holds a {type(content).__name__}; expected a mapping with a 'state_dict', or from "
            "parameter names to tensors. Save the model with torch.save(dict(state_dict=model.state_dict()), path)."
        )
    if _is_deep(content):
        raise InvalidValueError(
            f"Checkpoint {path} holds containers in containers, more than {_DEEPEST} levels deep; expected a "
            "'state_dict' and what training stores beside it. It was not written by training; take another file."
        )
    return content


def non_finite_names(weights: Mapping[str, object]) -> list[str]:
    """The names of tensors with a NaN or an infinite number in them."""
    return [
        name
        for name, value in weights.items()
        if isinstance(value, torch.Tensor)
        and (value.is_floating_point() or value.is_complex())
        and not torch.isfinite(value).all()
    ]


def missing_file_message(path: Path) -> str:
    """What to tell a user whose checkpoint file is missing: where it was looked for and which files lie there."""
    if path.is_dir():
        return f"Checkpoint {path} is a folder; expected a .pth file. It holds: {_listing(path)}."
    if path.parent.is_dir():
        return f"Checkpoint {path} does not exist; expected a .pth file. {path.parent} holds: {_listing(path.parent)}."
    return f"Checkpoint {path} does not exist, nor does its folder (working directory {os.getcwd()}). Correct the path."


def _load_weights(path: Path, size: str, *, mmap: bool) -> object:
    """What torch reads without running anything in the file; refuses with messages of our own."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except UnpicklingError as error:
        if "weights_only" in str(error) and (blocked := re.search(r"GLOBAL ([\w.]+)", str(error))):
            raise InvalidValueError(
                f"Checkpoint {path} holds an object of type {blocked[1]}; expected tensors and plain values. "
                "Loading it could run code from the file and is refused. If you trust its origin, re-save it with "
                "only its 'state_dict' where that type is installed."
            ) from error
        # Not torch's own text, which proposes to load unsafely.
        detail = re.search(r"WeightsUnpickler error: ([^\n]+)", str(error))
        reason = detail[1] if detail else "its content does not follow torch's format"
        raise InvalidValueError(_truncated_message(path, size, reason)) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, IndexError, AttributeError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else "the file ends early"
        raise InvalidValueError(_truncated_message(path, size, reason)) from error


def _is_deep(content: Mapping) -> bool:
    """Whether containers are nested so deep that walking through them ends Python; each is looked at once."""
    level: list[object] = [content]
    seen: set[int] = set()
    for _ in range(_DEEPEST):
        inner: list[object] = []
        for container in level:
            if id(container) not in seen:
                seen.add(id(container))
                items = container.values() if isinstance(container, Mapping) else container
                inner += (item for item in items if isinstance(item, (Mapping, list, tuple, set)))  # type: ignore[attr-defined]
        level = inner
        if not level:
            return False
    return True


def _has_end(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return False


def _damaged_part(path: Path) -> str | None:
    """What of an archive differs from its checksums, None if nothing does."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
        return str(error) or "its table of contents cannot be read"
    return None if name is None else f"the checksum of its part {name} differs"


def _listing(folder: Path) -> str:
    names = sorted(item.name for item in folder.glob("*.pth"))
    return ", ".join(names[-8:]) or "no .pth file"


def _truncated_message(path: Path, size: str, reason: str) -> str:
    return (
        f"Checkpoint {path} ({size}) cannot be read: {reason}. Expected a complete file written by torch.save; this "
        "one is truncated or no checkpoint. Copy or download it again, or take an earlier one from the same folder."
    )
