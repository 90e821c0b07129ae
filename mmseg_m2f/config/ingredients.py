"""Finding ingredients: by path, or by name in the `_base_` folders above a config, then in those of the package."""

import difflib
from pathlib import Path
from typing import Literal

from mmseg_m2f.config.finding import configs_folder
from mmseg_m2f.errors import InvalidValueError, MissingFileError

Kind = Literal["backbones", "datasets", "trackers"]


def find_ingredient(kind: Kind, name: str, *, beside: str | Path | None, option: str) -> Path:
    """The file of an ingredient.

    Args:
        name: A path that ends in `.py`, or the name of a file in `_base_/KIND`.
        beside: The config whose folders are searched upwards.
        option: What the messages of errors start with.

    Raises:
        FileNotFoundError: There is no such path.
        ValueError: There is no such name; the nearest are listed.
    """
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise MissingFileError(f"{option}={name}: expected an ingredient file, got none at {path.resolve()}.")
        return path
    folders = [parent / "_base_" / kind for parent in (Path(beside).resolve().parents if beside else ())]
    known: dict[str, Path] = {}
    for folder in (*folders, configs_folder() / "_base_" / kind):  # the nearest first
        if folder.is_dir():
            known = {file.stem: file for file in sorted(folder.glob("*.py"))} | known
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or sorted(known)
    raise InvalidValueError(
        f"{option}={name}: expected the name of a file in _base_/{kind} or a path to one. "
        f"Nearest: {', '.join(near) or f'none, {beside} has no _base_/{kind} above it'}."
    )
