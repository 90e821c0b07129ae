"""Folders of `tools/publish.py`, on disk or on the Hugging Face Hub, read as data."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from mmseg_m2f import compat
from mmseg_m2f.errors import InvalidValueError, MissingFileError
from mmseg_m2f.json_files import read_json

WEIGHTS, CONFIG, SUMS = "model.safetensors", "config.json", "SHA256SUMS"
_FOLDER, _HUB = "published://", "hf://"
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
        """By their names."""
        from safetensors.torch import load_file

        return load_file(str(self.folder / WEIGHTS))


def is_published(source: object) -> bool:
    """Whether this is a folder with published weights, or names a repository of the Hub (`hf://OWNER/NAME`)."""
    if not isinstance(source, str | os.PathLike):
        return False
    return str(source).startswith(_HUB) or (Path(source) / WEIGHTS).is_file()


def read_published(source: str | os.PathLike[str]) -> PublishedModel:
    """Read a folder of `tools/publish.py`, or a repository of the Hub, which huggingface_hub downloads.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is not the one that was published, or a package is missing.
    """
    folder = _download(str(source)) if str(source).startswith(_HUB) else Path(source)
    if not compat.is_installed("safetensors"):
        raise InvalidValueError(
            f'{source}: expected the package safetensors, got none. Run `pip install "mmseg-m2f[huggingface]"`.'
        )
    missing = [name for name in (WEIGHTS, CONFIG, SUMS) if not (folder / name).is_file()]
    if missing:
        raise MissingFileError(
            f"{source}: expected a folder of tools/publish.py, got one without {', '.join(missing)}. Copy it again."
        )
    sums = dict(line.split("  ", 1)[::-1] for line in _lines(folder / SUMS) if "  " in line)
    for name in (WEIGHTS, CONFIG):  # the card is often edited on the Hub
        if name in sums and sums[name] != hashlib.sha256((folder / name).read_bytes()).hexdigest():
            raise InvalidValueError(
                f"{source}: expected {name} as it was published, got another file (its hash differs). Copy the folder "
                f"again, or remove {name} from {SUMS} if you changed it on purpose."
            )
    what = f"{CONFIG} as tools/publish.py writes it"
    content = read_json(folder / CONFIG, what=what, structure=_STRUCTURE, remedy="Publish the model again.")
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


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _download(source: str) -> Path:
    if not compat.is_installed("huggingface_hub"):
        raise InvalidValueError(
            f"{source}: expected the package huggingface_hub, got none. Run `pip install "
            "huggingface_hub`, or give a folder."
        )
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source.removeprefix(_HUB), allow_patterns=[WEIGHTS, CONFIG, SUMS]))
