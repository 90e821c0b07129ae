"""Folders of `tools/publish.py`, on disk or on the Hugging Face Hub, read as data."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from mmseg_m2f import compat
from mmseg_m2f.checkpoints.converting import read_weights
from mmseg_m2f.errors import InvalidValueError, MissingFileError
from mmseg_m2f.json_files import Content, read_json

WEIGHTS, CONFIG, SUMS = "model.safetensors", "config.json", "SHA256SUMS"
_FOLDER, _HUB = "published://", "hf://"
_NAME = r"(?!.*(--|\.\.))\w([\w.-]*\w)?"  # as huggingface_hub takes them
_REPOSITORY = re.compile(rf"{_NAME}/{_NAME}", re.ASCII)
_STRUCTURE = {
    "config": str,
    "classes": [str],
    "palette": [[int]],
    "category_ids": [(int, str)],
    "metrics?": {str: float},
}


@dataclass(frozen=True, eq=False)
class PublishedModel:
    """A folder whose files are complete.

    Attributes:
        folder: Where it is.
        config: Text of the resolved config, as literals.
        classes, palette, category_ids, metrics: See `tools/publish.py`.
    """

    folder: Path
    config: str
    classes: list[str]
    palette: list[tuple[int, ...]]
    category_ids: list[int | str]
    metrics: Mapping[str, float]

    @property
    def names(self) -> dict[str, object]:
        """Classes, palette and numbers, as training writes them into checkpoints."""
        return dict(classes=self.classes, palette=self.palette, category_ids=self.category_ids)

    def weights(self) -> dict[str, Tensor]:
        """By their names.

        Raises:
            ValueError: The file is damaged.
        """
        return read_weights(self.folder / WEIGHTS)


def is_published(source: object) -> bool:
    """Whether this is a published folder, complete or not, or names a repository of the Hub (`hf://OWNER/NAME`)."""
    if not isinstance(source, str | os.PathLike):
        return False
    return str(source).startswith(_HUB) or (Path(source) / WEIGHTS).is_file() or _has(Path(source), CONFIG, SUMS)


def was_written_by_publish(folder: Path) -> bool:
    """Whether `tools/publish.py` wrote a folder; its files may be changed, and the weights missing."""
    if not _has(folder, CONFIG, SUMS) or not {WEIGHTS, CONFIG} <= _read_sums(folder).keys():
        return False
    try:
        _read_config(folder)
    except InvalidValueError:
        return False
    return True


def read_published(source: str | os.PathLike[str]) -> PublishedModel:
    """Read a folder of `tools/publish.py`, or a repository of the Hub, which huggingface_hub downloads.

    Raises:
        FileNotFoundError: A file is missing, or the repository cannot be downloaded.
        ValueError: A file is not the one that was published, a package is missing, or the address names no repository.
    """
    folder = _download(str(source)) if str(source).startswith(_HUB) else Path(source)
    if not compat.is_installed("safetensors"):
        raise InvalidValueError(
            f'{source}: expected the package safetensors, got none. Run `pip install "mmseg-m2f[huggingface]"`.'
        )
    missing = [name for name in (WEIGHTS, CONFIG, SUMS) if not _has(folder, name)]
    if missing:
        raise MissingFileError(
            f"{source}: expected a folder of tools/publish.py, got one without {', '.join(missing)}. Copy it again."
        )
    sums = _read_sums(folder)
    for name in (WEIGHTS, CONFIG):  # the card is often edited on the Hub
        if name not in sums:
            raise InvalidValueError(
                f"{source}: expected {SUMS} with a hash of {WEIGHTS} and of {CONFIG}, got none of {name}. Copy the "
                "folder again, or publish the model again."
            )
        if sums[name] != hashlib.sha256((folder / name).read_bytes()).hexdigest():
            raise InvalidValueError(
                f"{source}: expected {name} as it was published, got another file (its hash differs). Copy the folder "
                f"again, or write what `sha256sum {name}` prints into {SUMS} if you changed it on purpose."
            )
    content = _read_config(folder)
    palette = [tuple(colour) for colour in content["palette"]]
    return PublishedModel(
        folder, content["config"], content["classes"], palette, content["category_ids"], content.get("metrics", {})
    )


def published_url(source: str | os.PathLike[str]) -> str:
    """What mmengine loads a published folder by: `load_from` of a config."""
    return str(source) if str(source).startswith(_HUB) else f"{_FOLDER}{os.fspath(source)}"


@CheckpointLoader.register_scheme(prefixes=(_FOLDER, _HUB))
def _load_published(filename: str, map_location: str | None = None) -> dict[str, object]:
    """The content of a published folder as that of a checkpoint."""
    published = read_published(filename.removeprefix(_FOLDER))
    return dict(state_dict=published.weights(), meta=dict(dataset_meta=published.names))


def _has(folder: Path, *names: str) -> bool:
    return all((folder / name).is_file() for name in names)


def _read_sums(folder: Path) -> dict[str, str]:
    """The hashes by the names of the files."""
    lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    return dict(line.split("  ", 1)[::-1] for line in lines if "  " in line)


def _read_config(folder: Path) -> Content:
    what = f"{CONFIG} as tools/publish.py writes it"
    return read_json(folder / CONFIG, what=what, structure=_STRUCTURE, remedy="Publish the model again.")


def _download(source: str) -> Path:
    name = source.removeprefix(_HUB)
    if not _REPOSITORY.fullmatch(name):
        raise InvalidValueError(
            f"{source}: expected hf://OWNER/NAME, got {name or 'nothing'} behind hf://. Copy both names from the page "
            "of the repository, huggingface.co/OWNER/NAME."
        )
    if not compat.is_installed("huggingface_hub"):
        raise InvalidValueError(
            f"{source}: expected the package huggingface_hub, got none. Run "
            '`pip install "mmseg-m2f[huggingface]"`, or give a folder.'
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[WEIGHTS, CONFIG, SUMS]))
    except Exception as error:  # its own errors and those of its HTTP library have no base class in common
        raise MissingFileError(
            f"{source}: expected a repository that can be downloaded or is in the cache of huggingface_hub, got none: "
            f"{' '.join(str(error).split())} Correct the name, check the connection and HF_HUB_OFFLINE, log in with "
            "`hf auth login` if it is private, or give a folder."
        ) from error
