"""The one place that asks which torch and OpenMMLab packages are installed, and mends what differs.

Importing this module needs the standard library alone. `install()` mends imports:

- `mmcv._ext`, the compiled operators of mmcv, is missing from pure-Python installs, and then `mmdet.models`
  and `mmseg.models` cannot be imported. A stand-in is served where the compiled module is absent. What
  `layers.mmcv_operators` has computes the same in PyTorch, which is logged once for each operator; the others raise
  when called.
- A torchvision whose compiled half does not load (a CUDA wheel beside a CPU torch) fails at import, and takes
  timm with it. The step that fails is left out: transforms and models then work, and the operators raise
  torchvision's own message when called.
- Without $HOME and without an entry in the list of users (a container run under any user id) several packages fail
  while they are imported. Such a process gets a temporary home folder.
- Python 3.14 dropped `pkgutil.find_loader`, which mmengine 0.10.7 calls.

`allow_safe_checkpoint_globals()` mends loading: torch 2.6 refuses the checkpoints mmengine 0.10.7 writes.
`keep_config_layouts()` saves time: mmengine lays a config out with yapf for each checkpoint and six times when a run
starts, about half a second each time.
"""

import functools
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import logging
import os
import pkgutil
import sys
import tempfile
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from mmseg_m2f.errors import InvalidValueError, ResourceError

_LOGGER = logging.getLogger("mmseg_m2f")
_OPERATORS = "mmseg_m2f.layers.mmcv_operators"
_NEEDED = ("mmengine", "mmcv", "mmseg")  # mmdet and timm only where a config names them

# Import name -> distribution, in the maintained line (`onedl`) and in the original packages.
_ONEDL_DISTRIBUTIONS = {
    "mmengine": ("onedl-mmengine",),
    "mmcv": ("onedl-mmcv",),
    "mmdet": ("onedl-mmdetection",),
    "mmseg": ("onedl-mmsegmentation",),
}
_ORIGINAL_DISTRIBUTIONS = {
    "mmengine": ("mmengine", "mmengine-lite"),
    "mmcv": ("mmcv", "mmcv-lite", "mmcv-full"),
    "mmdet": ("mmdet",),
    "mmseg": ("mmsegmentation",),
}

_NUM_LAYOUTS = 8  # texts of configs
_CONSTRAINTS = {"onedl": "constraints.txt", "original": "constraints-original.txt"}


def install() -> None:
    """Make `mmdet.models`, `mmseg.models` and timm importable in an environment without compiled parts.

    Nothing is imported now and nothing changes where the compiled parts work. Calling it again does nothing. An
    OpenMMLab package that is missing altogether is named in a warning, with what installs it.
    """
    _warn_about_missing_packages()
    ensure_home()
    if not any(isinstance(finder, _MissingExtensionFinder) for finder in sys.meta_path):
        sys.meta_path.append(_MissingExtensionFinder())  # last: a compiled mmcv._ext is found first
        sys.meta_path.insert(0, _TorchvisionFinder())
    if not hasattr(pkgutil, "find_loader"):
        setattr(pkgutil, "find_loader", _find_loader)  # noqa: B010  (mypy knows no such name on 3.14)


def ensure_home() -> None:
    """Give the process a home folder of its own, for the time being, where the system names none; said in a warning."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.mkdtemp(prefix="mmseg_m2f-home-")  # nobody else may write there
        os.environ.setdefault("USER", str(os.getuid()))
        warnings.warn(
            f"No home folder: expected $HOME, or user {os.getuid()} in the list of users, got neither. What packages "
            f"keep there goes to {os.environ['HOME']}, and is made anew in the next run. Set HOME to keep it.",
            stacklevel=2,
        )


def is_installed(package: str) -> bool:
    """Whether a top-level package can be imported; it is not imported to find out."""
    return importlib.util.find_spec(package) is not None


@functools.cache
def has_torchvision_operators() -> bool:
    """Whether torchvision is installed and its compiled operators load beside this torch."""
    if not is_installed("torchvision"):
        return False
    install()
    return importlib.import_module("torchvision.extension")._has_ops()


def has_fully_shard() -> bool:
    """Whether torch shards parameters module by module (2.6)."""
    return _major_minor(importlib.metadata.version("torch")) >= (2, 6)


def is_served(operator: str) -> bool:
    """Whether an operator of `mmcv._ext` works here: compiled, or served by this package."""
    extension = importlib.import_module("mmcv._ext")
    if not isinstance(extension, _StandInExtension):
        return hasattr(extension, operator)
    return hasattr(importlib.import_module(_OPERATORS), operator)


def missing_operator_message(name: str) -> str:
    """What is missing, what was found, and what installs it."""
    version = _installed_version("onedl-mmcv")
    if version is not None:
        found = f"onedl-mmcv {version}"
        remedy = (
            "`pip install onedl-mim && mim install onedl-mmcv` (wheels for some pairs of torch and CUDA, see "
            "https://mmwheels.onedl.ai), or with a compiler: `pip install --force-reinstall --no-deps "
            f"--no-build-isolation --no-binary onedl-mmcv onedl-mmcv=={version}`"
        )
    else:
        found = _describe(_ORIGINAL_DISTRIBUTIONS["mmcv"]) or "mmcv"
        remedy = (
            "`pip uninstall mmcv-lite`, then a wheel of mmcv 2.1.0 from "
            "https://download.openmmlab.com/mmcv/dist, or with a compiler: "
            "`pip install --no-build-isolation mmcv==2.1.0`"
        )
    return (
        f"mmcv._ext.{name}: expected mmcv with its compiled operators, got {found} without them. "
        f"Get them by {remedy}; or configure a part that does not need this operator."
    )


def allow_safe_checkpoint_globals() -> None:
    """Let `torch.load` read mmengine's checkpoints without unpickling arbitrary code.

    Call it before the first checkpoint is loaded; twice is harmless. Since torch 2.6 `torch.load` accepts
    listed types only: mmengine's checkpoints hold its `HistoryBuffer` and numpy numbers, and mmengine 0.10.7
    does not list them; many others hold an `argparse.Namespace`, which is plain data. Older torch reads them anyway,
    and nothing is done.
    """
    import numpy
    import torch

    if _major_minor(torch.__version__) < (2, 6):
        return
    from mmengine.logging import HistoryBuffer

    numpy_core = numpy._core if hasattr(numpy, "_core") else numpy.core
    # Classifiers trained with timm's script carry the arguments of their run.
    safe: list[Any] = [Namespace, HistoryBuffer, (_statistic_of_history_buffer, "builtins.getattr")]
    safe += [numpy.ndarray, numpy.dtype, *{type(numpy.dtype(code)) for code in "?bBhHiIlLqQefd"}]
    for function in ("_reconstruct", "scalar"):
        for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # as numpy 1 and numpy 2 write it
            safe.append((getattr(numpy_core.multiarray, function), f"{module}.{function}"))
    torch.serialization.add_safe_globals(safe)


class _MissingExtensionFinder(MetaPathFinder):
    """Finds the stand-in for `mmcv._ext`. Asked last, hence only where no compiled one exists."""

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "mmcv._ext":
            return None
        return importlib.util.spec_from_loader(fullname, _StandInLoader(), origin="mmseg_m2f.compat")


class _StandInLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandInExtension(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run: the operators are made on request."""


class _StandInExtension(ModuleType):
    """Has every operator. Those of `layers.mmcv_operators` work, which the first call logs; the others raise."""

    def __getattr__(self, name: str) -> Callable[..., object]:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

        def operator(*args: object, **kwargs: object) -> object:
            served = getattr(importlib.import_module(_OPERATORS), name, None)
            if served is None:
                raise ResourceError(missing_operator_message(name))
            log_served(name)
            return served(*args, **kwargs)

        return operator


def keep_config_layouts() -> None:
    """Let yapf remember the texts that it has laid out, of which a run has one or two."""
    interface = importlib.import_module("yapf.yapflib.yapf_api")
    if not isinstance(interface.FormatCode, _KeptLayouts):
        setattr(interface, "FormatCode", _KeptLayouts(interface.FormatCode))  # noqa: B010


class _KeptLayouts:
    """A function of a text and options that is called once for each."""

    def __init__(self, format_code: Callable[..., object]) -> None:
        self._format_code = format_code
        self._kept: dict[tuple[str, str], object] = {}

    def __call__(self, text: str, **options: object) -> object:
        key = (text, repr(sorted(options.items())))
        if key not in self._kept:
            while len(self._kept) >= _NUM_LAYOUTS:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = self._format_code(text, **options)
        return self._kept[key]


@functools.cache
def log_served(name: str) -> None:
    """Say once that an operator of mmcv is computed in PyTorch; `log_served.cache_clear()` lets it be said again."""
    _LOGGER.info("mmcv._ext.%s: mmcv has no compiled operators; PyTorch computes it (%s).", name, _OPERATORS)


class _TorchvisionFinder(MetaPathFinder):
    """Puts a check before the module of torchvision that fails without its compiled half.

    That module only tells torch how the compiled operators behave on tensors without data. Without the
    operators it has no purpose, but raises `operator torchvision::nms does not exist`.
    """

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torchvision._meta_registrations" or path is None:
            return None
        spec = PathFinder.find_spec(fullname, list(path))
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _OperatorRegistrationLoader(spec.loader.name, spec.loader.path)
        return spec


class _OperatorRegistrationLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        if importlib.import_module("torchvision.extension")._has_ops():
            super().exec_module(module)


def _statistic_of_history_buffer(owner: object, name: str) -> object:
    """Stands for `getattr`, by which a pickled `HistoryBuffer` names its statistics; gives nothing else."""
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name.startswith("_"):
        raise InvalidValueError(
            f"checkpoint: expected a look-up of a statistic of HistoryBuffer, got {name!r} of {owner!r}. "
            "mmengine writes no such thing: do not load this file unless you trust its author."
        )
    return getattr(HistoryBuffer, name)


def _find_loader(fullname: str) -> object | None:
    """What `pkgutil.find_loader` was: the loader of a module, None if there is none."""
    spec = importlib.util.find_spec(fullname)
    return None if spec is None else spec.loader


def _warn_about_missing_packages() -> None:
    missing = [package for package in _NEEDED if not is_installed(package)]
    if not missing:
        return
    original = [name for names in _ORIGINAL_DISTRIBUTIONS.values() for name in names]
    onedl = [name for names in _ONEDL_DISTRIBUTIONS.values() for name in names]
    found = _describe([*onedl, *original, "torch"]) or "none of its relatives"
    # Both lines of OpenMMLab install the same modules: keep to the one that is there.
    line = "original" if _describe(original) and not _describe(onedl) else "onedl"
    warnings.warn(
        f"mmseg_m2f: expected the packages {', '.join(_NEEDED)}, got an environment without {', '.join(missing)} "
        f'({found}). In the checkout of mmseg_m2f, run `pip install -e ".[{line}]" -c {_CONSTRAINTS[line]}`.',
        stacklevel=4,
    )


def _describe(distributions: Sequence[str]) -> str:
    """The installed ones as "name version, name version"; empty if there is none."""
    versions = {name: _installed_version(name) for name in distributions}
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None)


def _installed_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _major_minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
