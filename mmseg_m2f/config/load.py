"""Reading a config file, and applying the options that it and the command line set."""

import difflib
import os
from pathlib import Path

from mmengine.config import Config

from mmseg_m2f.config.options import Options, apply_options
from mmseg_m2f.config.sources import read_sources
from mmseg_m2f.config.variables import apply_variables, check_variables
from mmseg_m2f.errors import MissingFileError


def load_config(path: str | os.PathLike[str], options: Options | None = None, *, work_dir: str | None = None) -> Config:
    """The config of a file with the options at its top and those of the command line applied.

    Args:
        options: See `apply_options`; they win over what the file says.
        work_dir: Where a run writes; the config's own `work_dir` if not given, else `work_dirs/<config name>`.

    Raises:
        FileNotFoundError: No such config; the message names the nearest.
        KeyError: A variable or key that nothing reads.
        ValueError, TypeError: An option cannot be applied.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(_missing_config_message(path))
    cfg = Config.fromfile(path)
    source = read_sources(path)
    if source is not None:
        check_variables(source)
        apply_variables(cfg, source)
    apply_options(cfg, options or {})
    cfg.work_dir = work_dir or cfg.get("work_dir") or str(Path("work_dirs") / path.stem)
    return cfg


def _missing_config_message(path: Path) -> str:
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    names = {file.name: file for file in folder.rglob("*.py") if "_base_" not in file.parts}
    near = [str(names[name]) for name in difflib.get_close_matches(path.name, names, n=3, cutoff=0.4)]
    hint = f"Nearest: {', '.join(near)}." if near else f"No similar .py file lies below {folder.resolve()}."
    return f"Config {path}: expected an existing file (working directory {os.getcwd()}). {hint}"
