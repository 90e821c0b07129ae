"""A config and a checkpoint as one call: image in, prediction out."""

import os
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from numpy.typing import NDArray
from torch import nn

from mmseg_m2f.checkpoints.checking import check_checkpoint
from mmseg_m2f.checkpoints.loading import load_weights
from mmseg_m2f.config.checks import check_config
from mmseg_m2f.config.initial_weights import drop_initial_weights
from mmseg_m2f.config.load import load_config
from mmseg_m2f.datasets.checked_loading import CheckedLoading
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.backbones import folding
from mmseg_m2f.predictions import ImageResult, read_result
from mmseg_m2f.predictions.palettes import Palette, distinct_palette
from mmseg_m2f.registry import DATASETS, MODELS, TRANSFORMS

_DEFAULT_IMAGE_LOADER = dict(type="mmengine.LoadImageFromFile")
_ANNOTATION_TRANSFORMS = ("SegmentsToObjects", "SegmentsToLabels", "ObjectsToSegments")


class Predictor:
    """What a trained segmentor or detector says about single images.

    The images go through the test pipeline of the config, without its annotations, one at a time; a prediction
    depends on the pixels alone. The names of the classes are the config's or its dataset's, else those of the data that
    the checkpoint was trained on, else those in the dataset's annotation file.

    Args:
        config: The file of a config, or a loaded config.
        checkpoint: Weights to load; without them the model keeps its random initial ones.
        device: Where the model runs; the GPU if there is one, unless given.
        fold_norms: Multiply the batch norms of the backbone into its convolutions, which saves an operator for each.
            Results are the same up to rounding; the model can no longer be trained, and its weights have other names.

    Attributes:
        classes: Names of the K classes.
        palette: K RGB triples.
        category_ids: K numbers of the classes in the data set's files, or else their indices.

    Raises:
        FileNotFoundError: The config or the checkpoint is missing.
        ValueError: The checkpoint is truncated, unsafe or of another model, nothing names the classes, or the head
            predicts another number of classes; or `fold_norms` would change what the backbone gives.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | Config,
        checkpoint: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device | None = None,
        fold_norms: bool = False,
    ) -> None:
        cfg = config.copy() if isinstance(config, Config) else load_config(config)
        check_config(cfg)
        if checkpoint is not None:
            drop_initial_weights(cfg.model)
        content = {} if checkpoint is None else check_checkpoint(checkpoint)
        dataset = _test_dataset(cfg)
        with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
            self.model: nn.Module = MODELS.build(_model_config(cfg))
            metainfo = _metainfo(dataset, content)
            image_loader, transforms = _split_pipeline(dataset.get("pipeline") or ())
            self._load_image = CheckedLoading([image_loader])
            self._transforms = Compose([TRANSFORMS.build(transform) for transform in transforms])
        self.classes: list[str] = list(cast(Sequence[str], metainfo.get("classes", ())))
        palette = cast(Palette, metainfo.get("palette") or ())
        self.palette = palette if len(palette) == len(self.classes) else distinct_palette(len(self.classes))
        ids = cast(Sequence[int], metainfo.get("category_ids") or ())
        self.category_ids: Sequence[int] = ids if len(ids) == len(self.classes) else range(len(self.classes))
        self._check_class_count(type_name=str(dataset.get("type")))
        if checkpoint is not None:
            weights = cast(Mapping[str, torch.Tensor], content.get("state_dict", content))
            load_weights(self.model, weights, source=str(checkpoint))
        self.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        if fold_norms:
            folding.fold_norms(self.model.backbone)

    @torch.no_grad()
    def __call__(self, image: str | os.PathLike[str] | NDArray[np.uint8]) -> ImageResult:
        """What the model predicts for an image, in its own size: label map, panoptic map, objects.

        Args:
            image: A file, or a BGR array H W 3 (uint8).

        Raises:
            FileNotFoundError: The file is missing.
            ValueError: The file cannot be decoded, the array is no such image, or the model predicts nothing.
        """
        pixels = image if isinstance(image, np.ndarray) else self.read(image)
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
            raise InvalidValueError(
                f"Predictor: expected a BGR image H W 3 of uint8, got shape {pixels.shape} of {pixels.dtype}. "
                "Read files with cv2.imread, or flip the last axis of an RGB array."
            )
        size = pixels.shape[:2]
        inputs = self._transforms(dict(img=pixels, img_shape=size, ori_shape=size, seg_fields=[]))
        batch = pseudo_collate([inputs])
        sample = self.model.test_step(batch)[0]  # type: ignore[operator]
        result = read_result(sample)
        if result is None:
            raise InvalidValueError(
                f"Predictor: expected 'pred_panoptic_seg', 'pred_instances' or 'pred_sem_seg' of "
                f"{type(self.model).__name__}, got {sample.keys()}. Choose a segmentor or a detector; a MaskDetector "
                "predicts what its test_cfg says."
            )
        return result

    def read(self, path: str | os.PathLike[str]) -> NDArray[np.uint8]:
        """The image of a file as the config reads it: BGR H W 3, uint8.

        Raises:
            FileNotFoundError: The file is missing.
            ValueError: It cannot be decoded.
        """
        return self._load_image(dict(img_path=os.fspath(path), seg_fields=[]))["img"]

    def _check_class_count(self, *, type_name: str) -> None:
        predicted = getattr(getattr(self.model, "decode_head", None), "num_classes", len(self.classes))
        if predicted != len(self.classes):
            raise InvalidValueError(
                f"model.decode_head.num_classes is {predicted}, but test_dataloader.dataset ({type_name}) has "
                f"{len(self.classes)} classes. Set num_classes={len(self.classes)}, or the dataset's "
                "metainfo=dict(classes=[...])."
            )


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
    dataset = loader["dataset"]
    while "dataset" in dataset or "datasets" in dataset:
        dataset = dataset["dataset"] if "dataset" in dataset else dataset["datasets"][0]
    return dataset


def _metainfo(dataset: Mapping, checkpoint: Mapping) -> Mapping[str, object]:
    """Classes and palette that the dataset's config sets, or its class, the checkpoint, or the data."""
    found = DATASETS.get(dataset["type"]) if isinstance(dataset["type"], str) else dataset["type"]
    own = dict(dataset.get("metainfo") or {})
    if "classes" in own:  # a palette of the class has other entries
        return own
    known = dict(getattr(found, "METAINFO", {})) | own
    trained_on = (checkpoint.get("meta") or {}).get("dataset_meta") or {}
    if "classes" in known:
        return known
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


def _split_pipeline(pipeline: Sequence[Mapping]) -> tuple[Mapping, list[Mapping]]:
    """The transform that reads the image, and those that follow, without the ones that read or need annotations."""
    image_loader: Mapping = _DEFAULT_IMAGE_LOADER
    transforms = []
    for transform in pipeline:
        parts = transform["transforms"] if _name(transform) == "CheckedLoading" else [transform]
        if not any(_name(part).startswith("Load") for part in parts):
            if _name(transform) not in _ANNOTATION_TRANSFORMS:
                transforms.append(transform)
            continue
        image_loader = next((part for part in parts if _name(part).startswith("LoadImage")), image_loader)
    return image_loader, transforms


def _name(transform: Mapping) -> str:
    kind = transform["type"]
    return kind.rpartition(".")[2] if isinstance(kind, str) else kind.__name__
