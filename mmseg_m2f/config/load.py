"""Reading a config file and applying the options of a command line to it."""

import difflib
import os
from pathlib import Path

from mmengine.config import Config

from mmseg_m2f.config.options import Options, apply_options
from mmseg_m2f.errors import MissingFileError


def load_config(path: str | os.PathLike[str], options: Options | None = None, *, work_dir: str | None = None) -> Config:
    """The config of a file with command line options merged in.

    Args:
        options: See `apply_options`.
        work_dir: Where a run writes; the config's own `work_dir` if not given, else `work_dirs/<config name>`.

    Raises:
        FileNotFoundError: No such config; the message names the nearest.
        ValueError: `data_root` or `backbone` cannot be applied.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(_missing_config_message(path))
    cfg = Config.fromfile(path)
    apply_options(cfg, options or {})
    cfg.work_dir = work_dir or cfg.get("work_dir") or str(Path("work_dirs") / path.stem)
    return cfg


def _missing_config_message(path: Path) -> str:
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    names = {file.name: file for file in folder.rglob("*.py") if "_base_" not in file.parts}
    near = [str(names[name]) for name in difflib.get_close_matches(path.name, names, n=3, cutoff=0.4)]
    hint = f"Nearest: {', '.join(near)}." if near else f"No similar .py file lies below {folder.resolve()}."
    return f"Config {path}: expected an existing file (working directory {os.getcwd()}). {hint}"
