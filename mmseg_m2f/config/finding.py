"""Finding configs: by path, or the published ones by name, in a checkout and in an installed package alike."""

import difflib
import os
from pathlib import Path

from mmseg_m2f.errors import MissingFileError


def configs_folder() -> Path:
    """The folder of the published configs and their ingredients: part of an installed package, else the checkout's."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def published_configs() -> dict[str, Path]:
    """The published configs by their names, `mask2former_r18_shapes_demo`, in order of folder and name."""
    return {path.stem: path for path in sorted(configs_folder().glob("[!_]*/*.py"))}


def find_config(config: str | os.PathLike[str]) -> Path:
    """The file of a config, given by its path or by the name of a published one.

    Raises:
        FileNotFoundError: There is no such file or name; the message lists the nearest.
    """
    path = Path(config)
    if path.is_file():
        return path
    published = published_configs()
    if path.name == os.fspath(config) and path.name.removesuffix(".py") in published:
        return published[path.name.removesuffix(".py")]
    raise MissingFileError(
        f"Config {path}: expected an existing file (working directory {os.getcwd()}), or the name of a published "
        f"config. {_nearest(path, published)}"
    )


def _nearest(path: Path, published: dict[str, Path]) -> str:
    """A sentence with names like the wanted one: files beside it, then published configs."""
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    beside = (
        {} if folder == Path() else {file.stem: file for file in folder.rglob("*.py") if "_base_" not in file.parts}
    )
    known = published.keys() | beside.keys()
    near = difflib.get_close_matches(path.name.removesuffix(".py"), known, n=3, cutoff=0.4)
    names = [name if name in published else str(beside[name]) for name in near]
    return f"Nearest: {', '.join(names)}." if names else "`mmseg_m2f config --list` shows all names."
