"""Files of weights in the layouts of `mmseg_m2f.checkpoints.layouts`: reading, converting, writing."""

import collections
import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmseg_m2f.checkpoints.array_pickle import load_arrays
from mmseg_m2f.checkpoints.checking import check_checkpoint
from mmseg_m2f.checkpoints.class_order import ClassOrder
from mmseg_m2f.checkpoints.layouts import Content, Layout, check_round_trip, convert, detect_content
from mmseg_m2f.core.low_rank import merge_low_rank
from mmseg_m2f.errors import InvalidValueError, MissingFileError
from mmseg_m2f.files import replace_file

_SUFFIXES: dict[Layout, tuple[str, ...]] = {
    "ours": (".pth",),
    "mmdet": (".pth",),
    "mmseg": (".pth",),
    "detectron2": (".pkl",),
    "torchhub": (".pth",),
    "lightning": (".bin", ".pth"),
    "transformers": (".safetensors", ".bin"),
    "transformers-timm": (".safetensors", ".bin"),
}
#: Without these numbers the authors' code takes a file for one of its first release, and renames what is right.
_VERSIONS = {"sem_seg_head": {"version": 2}, "sem_seg_head.predictor": {"version": 2}}


class ConversionReport(NamedTuple):
    """What a conversion did: layout and model found, numbers of weights read and written, names of those left out."""

    source: Content
    num_read: int
    num_written: int
    dropped: list[str]


def convert_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    to: Layout,
    class_order: ClassOrder | None = None,
) -> ConversionReport:
    """Write the weights of one file into another, in another layout.

    Low-rank changes (LoRA) are merged into the weights. What was written is read again, converted back and compared bit
    for bit with what the source holds; only then it takes the target's place. Nothing in the source is executed.

    Args:
        class_order: see `mmseg_m2f.checkpoints.layouts.convert`.

    Raises:
        FileNotFoundError: no such source.
        KeyError: weights without counterpart; all are listed.
        ValueError: a source that is damaged, unsafe or of no known layout; a target whose suffix does not fit its
            layout or that is the source; weights that differ after converting back.
    """
    source, target = Path(source), Path(target)
    _check_target(source, target, to=to)
    state = merge_low_rank(read_weights(source))
    weights, dropped = convert(state, to=to, class_order=class_order)
    unchecked = target.with_name(f".{target.stem}.{os.getpid()}.unchecked{target.suffix}")
    try:
        write_weights(unchecked, weights, layout=to)
        check_round_trip(state, read_weights(unchecked), class_order=class_order)
        unchecked.replace(target)
    finally:
        unchecked.unlink(missing_ok=True)
    return ConversionReport(detect_content(state), len(state), len(weights), dropped)


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The weights of a `.pkl`, `.safetensors` or torch file, the content of its `state_dict` or `model` if any.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, no weights, or with objects that only unsafe loading could restore.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"Weights {path}: no such file. Expected a .pth, .bin, .pkl or .safetensors file.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = load_arrays(path) if path.suffix == ".pkl" else check_checkpoint(path)
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise InvalidValueError(
            f"Weights {path}: the file holds a {type(content).__name__}; expected a mapping from names to arrays. "
            "Give the file of a whole model."
        )
    return {str(name): _tensor(value, name=str(name), path=path) for name, value in content.items()}


def write_weights(path: str | os.PathLike[str], weights: Mapping[str, Tensor], *, layout: Layout) -> None:
    """Write a file as the layout's own code reads it; the file appears complete or not at all."""
    path = Path(path)
    # Pieces of a larger tensor would be stored with the whole of it.
    weights = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in weights.items()
    }
    if layout == "detectron2":
        content = _pickled(weights)
    elif path.suffix == ".safetensors":
        content = _safetensors().save(weights, metadata={"format": "pt"})
    else:
        buffer = io.BytesIO()
        torch.save(_wrapped(weights, layout), buffer)
        content = buffer.getvalue()
    replace_file(path, content)


def _check_target(source: Path, target: Path, *, to: Layout) -> None:
    if target.suffix not in _SUFFIXES[to]:
        raise InvalidValueError(
            f"Target {target} ends in {target.suffix or 'nothing'}, but {to} reads {' or '.join(_SUFFIXES[to])}. "
            "Rename the target."
        )
    if target.exists() and source.exists() and target.samefile(source):
        raise InvalidValueError(f"Target {target} is the source; expected another file. Choose another name.")


def _tensor(value: object, *, name: str, path: Path) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))
    raise InvalidValueError(
        f"Weights {path}: {name} is a {type(value).__name__}; expected arrays or tensors only. "
        "Re-save the file with the weights alone."
    )


def _wrapped(weights: Mapping[str, Tensor], layout: Layout) -> dict:
    if layout in ("lightning", "transformers", "transformers-timm"):
        return dict(weights)
    return dict(model=weights) if layout == "torchhub" else dict(meta={}, state_dict=weights)


def _pickled(weights: Mapping[str, Tensor]) -> bytes:
    arrays = collections.OrderedDict()
    for name, value in weights.items():
        if value.dtype == torch.bfloat16:
            raise InvalidValueError(
                f"{name} is bfloat16, which numpy's arrays cannot hold. Convert it to float32 first."
            )
        arrays[name] = value.numpy()
    arrays._metadata = _VERSIONS  # type: ignore[attr-defined]
    # With an author named, detectron2 takes the names as they are.
    return pickle.dumps(dict(model=arrays, __author__="mmseg_m2f"))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    safetensors = _safetensors()
    from safetensors import SafetensorError

    try:
        return safetensors.load(path.read_bytes())
    except (SafetensorError, ValueError) as error:
        raise InvalidValueError(
            f"Weights {path} ({path.stat().st_size:,} bytes) cannot be read: {error}. Expected a complete "
            ".safetensors file; download or copy it again."
        ) from error


def _safetensors() -> ModuleType:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise InvalidValueError(
            "Files of type .safetensors need the package safetensors, which is not installed. "
            "Install it: pip install 'mmseg-m2f[huggingface]'."
        ) from error
    return safetensors.torch
