"""The files that parts of a model start from: turning them off or on, and checking that they fit."""

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope

from mmseg_m2f.checkpoints.checking import check_checkpoint, missing_file_message
from mmseg_m2f.checkpoints.package_weights import is_package_address, load_package_weights
from mmseg_m2f.checkpoints.whole_models import (
    is_whole_model,
    is_whole_model_address,
    read_whole_model,
    whole_model_address,
)
from mmseg_m2f.config.architectures import find_misfit
from mmseg_m2f.config.nodes import classes_of, config_nodes, short_type
from mmseg_m2f.config.type_lookup import accepted_arguments
from mmseg_m2f.errors import InvalidValueError, MissingFileError
from mmseg_m2f.files import is_remote

_RESIZED = ("pos_embed", "relative_position", "position_embedding")  # tables that backbones resize on loading
_LEAST_FILLED = 0.9  # of a backbone's numbers that its file must give; norms behind the stages may be missing


def drop_initial_weights(model: MutableMapping) -> None:
    """Let a model, or a part of one, that a checkpoint is about to fill be built without fetching initial weights."""
    for node in config_nodes(model):
        node.pop("init_cfg", None)
        _drop_names(node)


def set_pretrained(cfg: Config, pretrained: bool | str | None) -> None:
    """Start the backbone from weights or not, or the model from those of another.

    Args:
        pretrained: False, None or "off" for random weights, in all parts of the model; True or "on" for those that the
            config or timm knows; a checkpoint of a whole model, from which the model takes what fits (see
            `engine.hooks.FineTune`); else a file or address for the backbone.

    Raises:
        ValueError: Weights are asked for, and none are known.
    """
    value = {"on": True, "off": False, "none": False}.get(str(pretrained).lower(), pretrained)
    if is_whole_model_address(cfg.get("load_from")):
        cfg.load_from = None
    if is_whole_model(value):
        cfg.load_from = whole_model_address(str(value))
        return
    if value is None or value is False:
        _drop_pretrained(cfg.model)
        return
    backbone = cfg.model.get("backbone")
    if not isinstance(backbone, MutableMapping):
        raise InvalidValueError(f"pretrained={pretrained}: expected a model with a backbone, got none. Leave it out.")
    accepted = [accepted_arguments(target) for target in classes_of(backbone, cfg)]
    of_timm = "model_name" in backbone
    if value is True:
        if any(isinstance(file, str) for _, _, file in initial_files(backbone, "backbone")):
            return
        if of_timm:
            backbone["pretrained"] = True
        else:
            raise InvalidValueError(
                f"pretrained={pretrained}: no weights are known for model.backbone ({short_type(backbone)}). Expected "
                "init_cfg in its ingredient. Give a file or address, pretrained=PATH, or another backbone=NAME."
            )
        return
    _drop_pretrained(backbone)
    by_timm = of_timm and any(names is None or "checkpoint_path" in names for names in accepted)
    if by_timm and not is_package_address(str(value)):
        backbone["checkpoint_path"] = value
    else:
        backbone["init_cfg"] = ConfigDict(type="Pretrained", checkpoint=value)


def drop_replaced_weights(cfg: Config, *, resumes: bool) -> None:
    """Let the backbone be built without its initial weights where those of `load_from`, or a resumed run's, fill it.

    Where they fit less than 90 % of the backbone's numbers by name and shape, it keeps its own initial weights.

    Raises:
        FileNotFoundError, ValueError: The checkpoint is missing or refused.
    """
    if not is_whole_model_address(cfg.get("load_from")) or not isinstance(cfg.model.get("backbone"), MutableMapping):
        return
    if not resumes:
        weights = read_whole_model(cfg.load_from).weights
        expected = _backbone_shapes(cfg)
        sizes = {name: torch.Size(shape).numel() for name, shape in expected.items()}
        found = {name: tuple(weights[f"backbone.{name}"].shape) for name in expected if f"backbone.{name}" in weights}
        filled = sum(sizes[name] for name, shape in found.items() if shape == expected[name])
        if filled < _LEAST_FILLED * sum(sizes.values()):
            return
    _drop_pretrained(cfg.model.backbone)
    _drop_names(cfg.model)


def check_initial_weights(cfg: Config) -> None:
    """Check the files that parts of the model start from, as `check_checkpoint` does, and that the backbone's fits it.

    The names of files, addresses and model-zoo entries are compared with the size of the backbone (`torchvision://
    resnet50` has 50 layers); the tensors of local files and of those in packages with the backbone's, by name and
    shape.

    Raises:
        FileNotFoundError, ValueError: A file is missing, refused or another backbone's; the message says which key
            names it.
    """
    for path, switch, file in initial_files(cfg.get("model"), "model"):
        if not isinstance(file, str):
            continue
        advice = f"To start from random weights instead, add --cfg-options {switch}=None."
        content: Mapping[str, object] | None = None
        if is_package_address(file) or not is_remote(file):
            try:
                if is_package_address(file):
                    content = load_package_weights(file)
                elif not Path(file).is_file():
                    raise MissingFileError(missing_file_message(Path(file)))
                elif not file.endswith(".safetensors"):  # a format that holds nothing but arrays
                    content = check_checkpoint(file)
            except (FileNotFoundError, ValueError) as error:
                raise type(error)(f"{path}: {error} {advice}") from error
        of_backbone = path.startswith(("model.backbone.init_cfg", "model.pretrained", "model.backbone.pretrained"))
        if of_backbone and cfg.model.get("backbone"):  # SAN has encoders of images and texts instead
            misfit = find_misfit(cfg.model.backbone, file) or (content and _misfit_of_tensors(cfg, content))
            if misfit:
                raise InvalidValueError(
                    f"{path}: '{file}' does not fit model.backbone ({short_type(cfg.model.backbone)}): {misfit}. "
                    f"Choose the ingredient of the backbone that is meant, backbone=NAME, or its weights, "
                    f"pretrained=PATH. {advice}"
                )


def initial_files(node: object, path: str) -> Iterator[tuple[str, str, object]]:
    """Where a file is named, the key that turns it off, and the file; `checkpoint_path` is timm's key."""
    if isinstance(node, Mapping):
        if "init_cfg" in path.rpartition(".")[2] and "checkpoint" in node:
            yield f"{path}.checkpoint", path.partition("[")[0], node["checkpoint"]
        if "checkpoint_path" in node:
            yield f"{path}.checkpoint_path", f"{path}.checkpoint_path", node["checkpoint_path"]
        if isinstance(node.get("pretrained"), str):
            yield f"{path}.pretrained", f"{path}.pretrained", node["pretrained"]
        for key, value in node.items():
            yield from initial_files(value, f"{path}.{key}")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from initial_files(value, f"{path}[{index}]")


def _drop_pretrained(part: MutableMapping) -> None:
    """Take out files and names of weights; how random weights are drawn stays."""
    for node in config_nodes(part):
        given = node.get("init_cfg")
        listed = given if isinstance(given, (list, tuple)) else [given] if given else []
        kept = [item for item in listed if short_type(item) != "Pretrained"]
        if len(kept) < len(listed):
            node.pop("init_cfg")
            node.update(dict(init_cfg=kept) if kept else {})
        _drop_names(node)


def _drop_names(node: MutableMapping) -> None:
    node.pop("checkpoint_path", None)
    if node.get("pretrained"):
        node["pretrained"] = False if node["pretrained"] is True else None


def bare_backbone(cfg: Config) -> ConfigDict:
    """A copy of the backbone's config without what the model adds to what is built: weights and low-rank changes."""
    backbone = copy.deepcopy(cfg.model.backbone)
    drop_initial_weights(backbone)
    backbone.pop("lora", None)
    return backbone


def _misfit_of_tensors(cfg: Config, content: Mapping[str, object]) -> str | None:
    """What of the file contradicts the backbone; None where nothing does or where their names are unrelated."""
    init_cfg = cfg.model.backbone.get("init_cfg")
    prefix = init_cfg.get("prefix", "") if isinstance(init_cfg, Mapping) else ""
    expected = _backbone_shapes(cfg)
    weights = content.get("state_dict") or content.get("model") or content
    assert isinstance(weights, Mapping)
    starts = (f"{prefix.rstrip('.')}.",) if prefix else ("backbone.", "module.")
    found = {
        next((name.removeprefix(start) for start in starts if name.startswith(start)), name): tuple(value.shape)
        for name, value in weights.items()
        if isinstance(value, torch.Tensor)
    }
    shared = [name for name in expected if name in found and not any(table in name for table in _RESIZED)]
    inflates = "num_channels" in (cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor") or {})
    for name in shared:
        if inflates and len(found[name]) == 4 and _without_inputs(expected[name]) == _without_inputs(found[name]):
            continue  # the first convolution, which is fitted to the images' channels
        if expected[name] != found[name] and torch.Size(expected[name]).numel() != torch.Size(found[name]).numel():
            return f"'{name}' has shape {found[name]} there, expected {expected[name]}"
    if len(shared) < len(found) / 2:  # another library's names, which the backbone itself may translate
        return None
    total = sum(torch.Size(shape).numel() for shape in expected.values())
    filled = sum(torch.Size(expected[name]).numel() for name in expected if name in found)
    if filled < _LEAST_FILLED * total:
        missing = next(name for name in expected if name not in found)
        return f"it fills {filled / total:.0%} of its weights; '{missing}', for instance, is missing"
    return None


def _backbone_shapes(cfg: Config) -> dict[str, tuple[int, ...]]:
    backbone = bare_backbone(cfg)
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")), torch.device("meta"):
        return {name: tuple(value.shape) for name, value in MODELS.build(backbone).state_dict().items()}


def _without_inputs(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:1], *shape[2:])
