"""A config and a checkpoint as a model with the names of its classes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from torch import nn

from mmseg_m2f.checkpoints.checking import check_checkpoint
from mmseg_m2f.checkpoints.loading import load_weights
from mmseg_m2f.checkpoints.published import is_published, read_published
from mmseg_m2f.config.checks import check_config
from mmseg_m2f.config.initial_weights import drop_initial_weights
from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.nodes import config_nodes
from mmseg_m2f.config.operators import check_operators
from mmseg_m2f.config.options import Options, apply_options
from mmseg_m2f.config.stored_config import read_stored_config
from mmseg_m2f.datasets.checked_loading import CheckedLoading
from mmseg_m2f.engine.class_agreement import agreed_metainfo
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.lora import merge_lora
from mmseg_m2f.models.exported_network import use_exported
from mmseg_m2f.models.frozen_weights import lacks_frozen
from mmseg_m2f.models.image_pipeline import inner_dataset, split_pipeline
from mmseg_m2f.predictions.palettes import Palette, distinct_palette
from mmseg_m2f.registry import DATASETS, MODELS, TRANSFORMS
from mmseg_m2f.runtime import ExportedModel, is_exported


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model on the CPU in evaluation mode, and what its classes are.

    Attributes:
        dataset: Config of the dataset below wrappers that testing reads.
        classes: Names of the K classes.
        palette: K RGB triples.
        category_ids: K numbers or texts of the classes in the data set's files, or else their indices.
    """

    model: nn.Module
    dataset: Mapping
    classes: list[str]
    palette: Palette
    category_ids: Sequence[int | str]


def find_trained(
    config: str | os.PathLike[str] | Config,
    checkpoint: str | os.PathLike[str] | None = None,
    options: Options | None = None,
) -> tuple[Config, str | os.PathLike[str] | None]:
    """The config and the weights of a model.

    Args:
        config: The file or name of a config, or a loaded one; or what holds both: an exported file, a folder of
            `tools/publish.py`, or such a repository of the Hugging Face Hub (`hf://OWNER/NAME`).
        checkpoint: Weights for the config. A published folder is one, too.
        options: See `load_config`.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is broken, or its config names unknown types.
    """
    if isinstance(config, Config):
        return config.copy(), checkpoint
    if is_exported(config):
        cfg, weights = read_stored_config(ExportedModel(config).record.config, source=str(config)), checkpoint or config
    elif is_published(config):
        cfg, weights = read_stored_config(read_published(config).config, source=str(config)), checkpoint or config
    else:
        return load_config(config, options), checkpoint
    apply_options(cfg, options or {})
    return cfg, weights


def check_weights(weights: str | os.PathLike[str] | None) -> None:
    """Refuse what holds no weights, where a file is made of them.

    Raises:
        ValueError: There is no checkpoint, or it is an exported file.
    """
    if weights is None:
        raise InvalidValueError(
            "CHECKPOINT: expected one after the config, got none: the file would hold random weights. Give a .pth file "
            "or a folder of tools/publish.py."
        )
    if is_exported(weights):
        raise InvalidValueError(
            f"{weights}: expected a checkpoint, got an exported file, which holds a program instead of the weights of "
            "the model. Give the checkpoint that it was exported from."
        )


def load_trained(cfg: Config, checkpoint: str | os.PathLike[str] | None = None) -> TrainedModel:
    """Build the model of a config and fill it with the weights of a checkpoint.

    The names of the classes are the config's or its dataset's, else those of the data that the checkpoint was trained
    on, else those in the dataset's annotation file. Their order is the checkpoint's, where it names the same ones.

    Args:
        cfg: Changed in place: initial weights that the checkpoint replaces are dropped, and `lora`, whose changes are
            merged into the weights.
        checkpoint: Weights to load, or an exported file (`tools/export.py`) that computes the network; without it the
            model keeps its random initial weights.

    Raises:
        FileNotFoundError: The checkpoint is missing.
        ValueError: The checkpoint is truncated, unsafe or of another model, nothing names the classes, or the head
            predicts another number of classes.
        RuntimeError: A part of the model needs an operator of mmcv that does not work here.
    """
    check_config(cfg)
    if is_exported(checkpoint):
        assert checkpoint is not None
        drop_initial_weights(cfg.model)
        return _load_exported(cfg, ExportedModel(checkpoint))
    check_operators(cfg)
    content: Mapping[str, object] = {}
    if is_published(checkpoint):
        assert checkpoint is not None
        published = read_published(checkpoint)
        content = dict(state_dict=published.weights(), meta=dict(dataset_meta=published.names))
    elif checkpoint is not None:
        content = check_checkpoint(checkpoint)
    weights = cast(Mapping[str, torch.Tensor], content.get("state_dict", content))
    if checkpoint is not None and not lacks_frozen(weights):
        drop_initial_weights(cfg.model)
    dataset = _test_dataset(cfg)
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
        model: nn.Module = MODELS.build(_model_config(cfg))
        metainfo = _metainfo(dataset, content, source=checkpoint)
    classes = list(cast(Sequence[str], metainfo.get("classes", ())))
    palette = cast(Palette, metainfo.get("palette") or ())
    ids = cast(Sequence[int | str], metainfo.get("category_ids") or ())
    _check_class_count(model, classes, type_name=str(dataset.get("type")))
    if checkpoint is not None:
        load_weights(model, weights, source=str(checkpoint))
        if merge_lora(model):
            _drop_lora(cfg.model)
    return TrainedModel(
        model.eval(),
        dataset,
        classes,
        palette if len(palette) == len(classes) else distinct_palette(len(classes)),
        ids if len(ids) == len(classes) else range(len(classes)),
    )


def _drop_lora(model: Mapping) -> None:
    for node in config_nodes(model):
        node.pop("lora", None)


def _load_exported(cfg: Config, file: ExportedModel) -> TrainedModel:
    """The model of a config with an exported file in the place of its network; the names are the file's."""
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
        model: nn.Module = MODELS.build(_model_config(cfg))
    record, dataset = file.record, _test_dataset(cfg)
    _check_class_count(model, record.classes, type_name=str(file.path))
    use_exported(model, file)
    return TrainedModel(model.eval(), dataset, list(record.classes), record.palette, record.category_ids)


def test_transforms(cfg: Config, dataset: Mapping) -> tuple[CheckedLoading, Compose]:
    """What reads an image file, and what prepares an image for the model: the test pipeline without annotations."""
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
        image_loader, transforms = split_pipeline(dataset.get("pipeline") or ())
        return CheckedLoading([image_loader]), Compose([TRANSFORMS.build(transform) for transform in transforms])


def _model_config(cfg: Config) -> dict:
    model = dict(cfg.model)
    if "data_preprocessor" in cfg:
        model.setdefault("data_preprocessor", cfg.data_preprocessor)
    return model


def _test_dataset(cfg: Config) -> Mapping:
    """The config of the dataset below wrappers that testing reads."""
    loader = cfg.get("test_dataloader") or cfg.get("val_dataloader")
    if loader is None:
        raise InvalidValueError(
            f"Predictor: config {cfg.filename} has no test_dataloader; expected one, for its pipeline and classes. "
            "Add a dataset ingredient."
        )
    return inner_dataset(loader["dataset"])


def _metainfo(dataset: Mapping, checkpoint: Mapping, *, source: object) -> Mapping[str, object]:
    """Classes and palette that the dataset's config sets, or its class, the checkpoint, or the data."""
    found = DATASETS.get(dataset["type"]) if isinstance(dataset["type"], str) else dataset["type"]
    own = dict(dataset.get("metainfo") or {})
    trained_on = (checkpoint.get("meta") or {}).get("dataset_meta") or {}
    # A palette of the class has other entries.
    known = own if "classes" in own else dict(getattr(found, "METAINFO", {})) | own
    if "classes" in known:
        return agreed_metainfo(known, trained_on, source=source)
    if "classes" in trained_on:
        return trained_on
    try:
        return DATASETS.build({**dataset, "pipeline": []}).metainfo
    except FileNotFoundError as error:
        raise InvalidValueError(
            "Predictor: expected class names in test_dataloader.dataset.metainfo, in the checkpoint "
            f"(meta.dataset_meta, as training writes it) or in the dataset's files, got none ({error}). Set "
            "test_dataloader.dataset.metainfo=dict(classes=[...]) or data_root."
        ) from error


def _check_class_count(model: nn.Module, classes: Sequence[str], *, type_name: str) -> None:
    predicted = getattr(getattr(model, "decode_head", None), "num_classes", len(classes))
    if predicted != len(classes):
        raise InvalidValueError(
            f"model.decode_head.num_classes is {predicted}, but test_dataloader.dataset ({type_name}) has "
            f"{len(classes)} classes. Set num_classes={len(classes)}, or the dataset's "
            "metainfo=dict(classes=[...])."
        )
