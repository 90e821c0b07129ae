"""Modules of a user's own, which a config names in `custom_imports`."""

import os
import sys
from pathlib import Path

from mmseg_m2f.errors import UnknownNameError


def find_own_modules(config: Path) -> None:
    """Let Python find modules beside the config and in the working directory, after all others.

    `python tools/train.py` looks in `tools/` and where packages are installed alone.
    """
    for folder in (str(config.resolve().parent), os.getcwd()):
        if folder not in sys.path:
            sys.path.append(folder)


def missing_import(error: ImportError, config: Path) -> UnknownNameError | None:
    """The error for a module of `custom_imports` that is not there; None where the import failed for another reason."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ModuleNotFoundError):
        cause = cause.__cause__ or cause.__context__
    if cause is None or not cause.name:
        return None
    return UnknownNameError(
        f"Config {config}, custom_imports: expected the module '{cause.name}' beside the config "
        f"({config.resolve().parent}), in the working directory ({os.getcwd()}) or among the installed packages; it is "
        f"in none of them. Correct the name, or add its folder: PYTHONPATH=FOLDER python tools/..."
    )
