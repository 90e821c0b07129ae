"""Compiling C++ sources on first use with the compiler that is there, if one is."""

import ctypes
import errno
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

_LOGGER = logging.getLogger("mmseg_m2f")
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_SECONDS = 120
_OTHER_COMPILER = "Install a C++ compiler, or set CXX to one."
_OTHER_CACHE = "Set XDG_CACHE_HOME to a folder that you may write to."


@cache
def load_library(source: Path) -> ctypes.CDLL | None:
    """The compiled functions of a source file; None, said once in the log, where it cannot be compiled.

    The library is kept in `$XDG_CACHE_HOME/mmseg_m2f` (by default `~/.cache/mmseg_m2f`) under a name that stands for
    source, compiler and processor. The compiler is `$CXX`, or `g++` or `clang++` of the search path.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        _warn(source, "no C++ compiler was found (looked for $CXX, g++ and clang++)")
        return None
    try:
        # What "native" means on this machine is part of the name: home folders may be shared.
        target = subprocess.run(
            [compiler, *_FLAGS, "-E", "-v", "-x", "c++", os.devnull],
            capture_output=True,
            timeout=_SECONDS,
            check=True,
        )
        name = hashlib.sha256(source.read_bytes() + target.stderr).hexdigest()[:16]
        library = _cache_folder() / f"{source.stem}-{name}.so"
        if not library.is_file():
            _compile(compiler, source, library)
        return ctypes.CDLL(str(library))
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        _warn(source, f"{compiler} failed: {lines[-1] if lines else error}")
    except PermissionError as error:
        _warn(source, f"{error.filename} cannot be written", remedy=_OTHER_CACHE)
    except (OSError, subprocess.TimeoutExpired) as error:
        read_only = isinstance(error, OSError) and error.errno in (errno.EROFS, errno.ENOSPC)
        _warn(source, str(error), remedy=_OTHER_CACHE if read_only else _OTHER_COMPILER)
    except RuntimeError as error:  # neither $HOME nor an entry in the list of users
        _warn(source, f"there is no folder to keep it in ({error})", remedy=_OTHER_CACHE)
    return None


def _compile(compiler: str, source: Path, library: Path) -> None:
    """Write the library in one step, so that processes that start together do not see half of it."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        unfinished = Path(folder, library.name)
        command = [compiler, *_FLAGS, "-o", str(unfinished), str(source)]
        subprocess.run(command, capture_output=True, timeout=_SECONDS, check=True)
        unfinished.replace(library)


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmseg_m2f"


def _warn(source: Path, reason: str, *, remedy: str = _OTHER_COMPILER) -> None:
    _LOGGER.warning(
        "%s was not compiled: %s. Results stay the same; deformable attention on the CPU takes about ten times as "
        "long. %s",
        source.name,
        reason.rstrip("."),
        remedy,
    )
