"""Reading a config file, and applying the options that it and the command line set."""

import copy
import os
import tempfile
from json import JSONDecodeError
from pathlib import Path

import yaml
from mmengine.config import Config

from mmseg_m2f.config.finding import find_config
from mmseg_m2f.config.options import Options, apply_options
from mmseg_m2f.config.own_modules import find_own_modules, missing_import
from mmseg_m2f.config.sources import read_sources
from mmseg_m2f.config.variables import apply_variables, check_variables, loader_pipeline
from mmseg_m2f.errors import InvalidValueError


def load_config(path: str | os.PathLike[str], options: Options | None = None, *, work_dir: str | None = None) -> Config:
    """The config of a file with the options at its top and those of the command line applied.

    Args:
        path: A file, or the name of a published config.
        options: See `apply_options`; they win over what the file says.
        work_dir: Where a run writes; the config's own `work_dir` if not given, else `work_dirs/<config name>`.

    Raises:
        FileNotFoundError: No such config; the message names the nearest.
        KeyError: A variable or key that nothing reads, or a module of `custom_imports` that is not there.
        ValueError, TypeError: The file cannot be read, or an option cannot be applied.
    """
    path = find_config(path)
    find_own_modules(path)
    try:
        if path.suffix in (".yaml", ".yml"):  # mmengine's parser crashes on deep nesting, and builds any object
            yaml.safe_load(path.read_text(encoding="utf-8"))
        cfg = Config.fromfile(path)
    except ImportError as error:
        raise missing_import(error, path) or error from error
    except OSError as error:
        if error.filename is None:  # mmengine reads a copy of the file
            raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from error
        raise
    except (SyntaxError, JSONDecodeError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = (
            "entries or _base_ without an end" if isinstance(error, RecursionError) else " ".join(str(error).split())
        )
        raise InvalidValueError(f"{path}: expected a config, got {reason}. Correct the file.") from error
    source = read_sources(path)
    if source is not None:
        check_variables(cfg, source)
        apply_variables(cfg, source)
    apply_options(cfg, options or {})
    for name, loader in (("train_pipeline", "train_dataloader"), ("test_pipeline", "test_dataloader")):
        if name in cfg and (pipeline := loader_pipeline(cfg, loader)):
            cfg[name] = copy.deepcopy(pipeline)
    cfg.work_dir = work_dir or cfg.get("work_dir") or str(Path("work_dirs") / path.stem)
    return cfg
