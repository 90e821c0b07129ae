"""Checkpoints of whole models as a start for training: `whole-model://PATH`, for mmengine's loader.

The weights get our names, from every layout of `mmseg_m2f.checkpoints.layouts`; other models of OpenMMLab keep theirs.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from mmseg_m2f.checkpoints.checking import check_checkpoint, missing_file_message
from mmseg_m2f.checkpoints.converting import read_weights
from mmseg_m2f.checkpoints.layouts import KEY_MAPS, detect_content
from mmseg_m2f.checkpoints.published import is_published, read_published
from mmseg_m2f.core.low_rank import merge_low_rank
from mmseg_m2f.errors import InvalidValueError, MissingFileError
from mmseg_m2f.files import is_remote
from mmseg_m2f.json_files import read_json

SCHEME = "whole-model://"
_SUFFIXES = (".pth", ".pt", ".bin", ".pkl", ".safetensors")
_CLASSIFIER = ("head.", "fc.", "classifier.")  # what a classifier of images has besides `backbone.`


class WholeModel(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        weights: by our names.
        unknown: names of weights that our models have no counterpart for.
        layout: whose names the file follows, and which model it is, in words.
        classes: names of the rows of the class layer, in order; None where the file names none.
    """

    weights: dict[str, Tensor]
    unknown: list[str]
    layout: str
    classes: tuple[str, ...] | None


def is_whole_model(path: object) -> bool:
    """Whether this is a file or published folder with a model's backbone and head; False where it cannot be read.

    Weights of a backbone alone, or of a classifier of images, are none.
    """
    if is_published(path):
        return True
    if not isinstance(path, str) or is_remote(path) or Path(path).suffix not in _SUFFIXES or not Path(path).is_file():
        return False
    try:
        weights = _stripped(read_weights(path))
        return _has_head(weights) or bool(detect_content(weights))
    except ValueError:  # the check before the run says what is wrong with the file
        return False


def whole_model_address(path: str) -> str:
    """What `load_from` of a config says to start from the layers that fit."""
    return f"{SCHEME}{path}"


def is_whole_model_address(address: object) -> bool:
    """Whether `load_from` is such an address."""
    return isinstance(address, str) and address.startswith(SCHEME)


def read_whole_model(path: str) -> WholeModel:
    """The weights of a checkpoint under our names, low-rank changes (LoRA) merged, and the names of its classes.

    Class names are those that training stores (`meta.dataset_meta`), a published folder's, or those of Hugging Face's
    `config.json` beside the file.

    Args:
        path: a file, a published folder, or either behind `whole-model://`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, unsafe, or no model's weights.
    """
    path = path.removeprefix(SCHEME)
    if is_published(path):
        published = read_published(path)
        return WholeModel(published.weights(), [], "ours", tuple(published.classes))
    if not Path(path).is_file():
        raise MissingFileError(missing_file_message(Path(path)))
    weights = merge_low_rank(_stripped(read_weights(path)))
    classes = _class_names(Path(path))
    try:
        layout, model = detect_content(weights)
    except InvalidValueError:
        if not _has_head(weights):
            raise
        return WholeModel(weights, [], "OpenMMLab's names", classes)
    key_map = KEY_MAPS[layout][model]
    if layout == "ours":  # other parts, such as a neck, keep their names
        return WholeModel(weights, [], f"ours, {model}", classes)
    modern, dropped = key_map.modern(weights)
    unknown = [name for name in modern if not key_map.knows(name, modern)]
    named = key_map.to_ours({name: value for name, value in modern.items() if name not in set(unknown)})
    return WholeModel(named, dropped + unknown, f"{layout}, {model}", classes)


def load_whole_model(filename: str, map_location: object = None) -> dict[str, object]:
    """A checkpoint as mmengine's loaders give it, with `unknown` and `layout` of `WholeModel` besides.

    Args:
        filename: `whole-model://PATH`.
        map_location: Passed over: the weights are about to be copied into a model.
    """
    model = read_whole_model(filename)
    meta = {} if model.classes is None else dict(dataset_meta=dict(classes=model.classes))
    return dict(state_dict=model.weights, meta=meta, unknown=model.unknown, layout=model.layout)


def _stripped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module."): value for name, value in weights.items()}


def _has_head(names: Iterable[str]) -> bool:
    """Whether these are the names of an OpenMMLab model with more than a backbone and a classifier."""
    others = [name for name in names if not name.startswith("backbone.")]
    return any(name.startswith("backbone.") for name in names) and any(
        not name.startswith(_CLASSIFIER) for name in others
    )


def _class_names(path: Path) -> tuple[str, ...] | None:
    if path.suffix in (".pth", ".pt") or (path.suffix == ".bin" and not (path.parent / "config.json").is_file()):
        meta = check_checkpoint(path).get("meta")
        stored = meta.get("dataset_meta", meta) if isinstance(meta, Mapping) else None
        names = (stored.get("classes") or stored.get("CLASSES")) if isinstance(stored, Mapping) else None
    else:
        names = _huggingface_names(path.parent / "config.json")
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) and names else None


def _huggingface_names(file: str | os.PathLike[str]) -> list[str] | None:
    """Class names of a `config.json`; None where it has none but "LABEL_0", which stand for unknown ones."""
    if not Path(file).is_file():
        return None
    structure = {"id2label?": {str: str}}
    what = "the description of a Hugging Face model"
    content = read_json(file, what=what, structure=structure, remedy="Copy the model's folder again.")
    if not all(number.isdecimal() for number in content.get("id2label", {})):
        return None
    labels = {int(number): name for number, name in content.get("id2label", {}).items()}
    if sorted(labels) != list(range(len(labels))) or labels.get(0) == "LABEL_0":
        return None
    return [labels[number] for number in range(len(labels))]


CheckpointLoader.register_scheme(prefixes=SCHEME, loader=load_whole_model, force=True)
