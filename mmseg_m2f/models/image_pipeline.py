"""The part of a test pipeline that prepares an image for the model: its annotations left out."""

import copy
from collections.abc import Mapping, MutableMapping, Sequence

from mmengine.config import Config, ConfigDict

_DEFAULT_IMAGE_LOADER = dict(type="mmengine.LoadImageFromFile")
_ANNOTATION_TRANSFORMS = ("SegmentsToObjects", "SegmentsToLabels", "ObjectsToSegments")


def split_pipeline(pipeline: Sequence[Mapping]) -> tuple[Mapping, list[Mapping]]:
    """The transform that reads the image, and those that follow, without the ones that read or need annotations.

    A pipeline of a dataset that makes its images reads none; mmengine's `LoadImageFromFile` then stands first.
    """
    image_loader: Mapping = _DEFAULT_IMAGE_LOADER
    transforms = []
    for transform in pipeline:
        parts = transform["transforms"] if _name(transform) == "CheckedLoading" else [transform]
        if not any(_name(part).startswith("Load") for part in parts):
            if _name(transform) not in _ANNOTATION_TRANSFORMS:
                transforms.append(transform)
            continue
        image_loader = next((part for part in parts if _reads_image(part)), image_loader)
    return image_loader, transforms


def inner_dataset(dataset: MutableMapping) -> MutableMapping:
    """The config of the dataset below wrappers; the first of several."""
    while "dataset" in dataset or "datasets" in dataset:
        dataset = dataset["dataset"] if "dataset" in dataset else dataset["datasets"][0]
    return dataset


def use_upstream_loading(cfg: Config | ConfigDict) -> Config | ConfigDict:
    """Let the test pipeline of a config begin with `LoadImageFromFile` and leave out annotations.

    `inference_model`, `inference_detector`, `MMSegInferencer` and `DetInferencer` look for a transform of this name,
    without scope, and replace it where an image is an array. `CheckedLoading` hides it from them. The pipeline is
    written to the dataset of `test_dataloader` and to `test_pipeline`. A config without `test_dataloader` stays as it
    is. Calling it again changes nothing.

    Args:
        cfg: changed in place.

    Returns:
        `cfg`.
    """
    if not cfg.get("test_dataloader"):
        return cfg
    dataset = inner_dataset(cfg["test_dataloader"]["dataset"])
    image_loader, transforms = split_pipeline(dataset.get("pipeline") or ())
    if _name(image_loader) == "LoadImageFromFile":
        image_loader = dict(image_loader, type="LoadImageFromFile")
    pipeline = [ConfigDict(image_loader), *transforms]
    dataset["pipeline"] = copy.deepcopy(pipeline)
    cfg["test_pipeline"] = copy.deepcopy(pipeline)
    return cfg


def _reads_image(transform: Mapping) -> bool:
    """Whether it loads the image, by its name: `LoadImageFromFile`, `LoadBands`, `LoadMultiChannelImageFromFiles` …."""
    name = _name(transform)
    return name.startswith("Load") and ("Image" in name or name == "LoadBands")


def _name(transform: Mapping) -> str:
    kind = transform["type"]
    return kind.rpartition(".")[2] if isinstance(kind, str) else kind.__name__
