"""The configs inside the installed mmseg and mmdet, and which of them have the same model."""

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmseg_m2f.errors import InvalidValueError, MissingFileError

LIBRARIES = ("mmseg", "mmdet")


@dataclass(frozen=True)
class Shipped:
    """One config of a library.

    Args:
        library: `mmseg` or `mmdet`.
        path: below the library's folder of configs.
        file: where it is.
    """

    library: str
    path: str
    file: Path

    @property
    def name(self) -> str:
        """Unique over libraries: `mmdet/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py`."""
        return f"{self.library}/{self.path}"

    @property
    def family(self) -> str:
        """The folder that holds it, with the library."""
        return f"{self.library}/{Path(self.path).parts[0]}"


def shipped_configs(libraries: Sequence[str] = LIBRARIES, *, one_per_family: bool = False) -> list[Shipped]:
    """All configs of the installed libraries without their ingredients (`_base_`), in order of name.

    Args:
        one_per_family: the first of each folder alone.

    Raises:
        FileNotFoundError: a library is not installed, or without its configs.
        ValueError: another library.
    """
    found: dict[str, Shipped] = {}
    for library in libraries:
        folder = _folder(library)
        for file in sorted(folder.rglob("*.py")):
            path = file.relative_to(folder)
            if "_base_" in path.parts or len(path.parts) < 2:
                continue
            config = Shipped(library, path.as_posix(), file)
            found.setdefault(config.family if one_per_family else config.name, config)
    return list(found.values())


def find_shipped(library: str, path: str) -> Path:
    """The file of one config, by its path below the library's folder of configs.

    Raises:
        FileNotFoundError: the library is not installed, or without this config.
        ValueError: another library.
    """
    file = _folder(library) / path
    if not file.is_file():
        raise MissingFileError(
            f"{library}: expected its config {path} in {file.parent}, got none. Install a version of {library} that "
            "ships it, or leave it out."
        )
    return file


def model_key(cfg: Config) -> str:
    """Equal for configs whose models are equal: schedules and data differ in most of what a folder holds."""
    return _hash(dict(model=cfg.get("model"), scope=cfg.get("default_scope"), imports=cfg.get("custom_imports")))


def kind_key(cfg: Config) -> str:
    """Equal for configs whose models consist of parts of the same types: they differ in sizes and settings alone."""
    return _hash(dict(types=sorted(set(_types(cfg.get("model")))), scope=cfg.get("default_scope")))


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(_plain(content), sort_keys=True, default=str).encode()).hexdigest()[:16]


def _types(node: object) -> Iterator[str]:
    """The type of every part of a model: of layers, losses and assigners too."""
    if isinstance(node, Mapping):
        if "type" in node:
            yield str(node["type"])
        for value in node.values():
            yield from _types(value)
    elif isinstance(node, (list, tuple)):
        for item in node:
            yield from _types(item)


def _plain(node: object) -> object:
    """Nested containers with keys as text, as JSON demands."""
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    return [_plain(item) for item in node] if isinstance(node, (list, tuple)) else node


def _folder(library: str) -> Path:
    if library not in LIBRARIES:
        raise InvalidValueError(f"library: expected one of {', '.join(LIBRARIES)}, got {library}.")
    spec = importlib.util.find_spec(library)
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    for root in roots:
        if (root / ".mim" / "configs").is_dir():
            return root / ".mim" / "configs"
    raise MissingFileError(
        f"{library}: expected the installed package with its configs (.mim/configs), got "
        f"{', '.join(map(str, roots)) or 'no such package'}. Install it, or leave it out."
    )
