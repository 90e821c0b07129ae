"""Samples of a data set as the model gets them: after the pipeline, with their labels drawn."""

from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import PurePath
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from mmseg_m2f.config.channels import channels_in_use
from mmseg_m2f.config.checks import check_config
from mmseg_m2f.config.data_paths import Loop, check_data_paths
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.segmentors.channel_values import check_shown
from mmseg_m2f.predictions import read_truth
from mmseg_m2f.predictions.palettes import class_colours
from mmseg_m2f.visualization import SheetEntry, contact_sheet
from mmseg_m2f.visualization.bands import show_bands

_PER_ROW = 6


def sample_sheet(
    cfg: Config, *, loop: Loop = "train", samples: Sequence[int] | int = 12, cell_width: int = 256
) -> Image.Image:
    """Images and labels as they leave the pipeline, with random flips, crops and colours; six beside each other.

    Panoptic maps, objects and label maps are drawn, as far as the samples have them. Normalising and padding come
    later, in the model.

    Args:
        loop: whose data set: "train", "val" or "test".
        samples: their numbers, or how many, spread evenly.
        cell_width: of each picture, in pixels.

    Raises:
        ValueError: the config has no such data set, or a number is beyond its end.
    """
    check_config(cfg)
    loader = cfg.get(f"{loop}_dataloader")
    if not loader:
        raise InvalidValueError(f"The config has no {loop}_dataloader; expected one to browse. Choose another --loop.")
    check_data_paths(cfg, loops=(loop,))
    _keep_masks(loader.dataset)
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmengine"):
        dataset = DATASETS.build(loader.dataset)
        entries = list(_entries(dataset, _numbers(len(dataset), samples, loop), cfg))
    classes, palette = class_colours(dataset)
    groups = [entries[first : first + _PER_ROW] for first in range(0, len(entries), _PER_ROW)]
    rows = [
        contact_sheet(
            group, classes, palette, cell_width=cell_width, score_threshold=0.0, with_legend=group is groups[-1]
        )
        for group in groups
    ]
    return _stacked(rows)


def _entries(dataset: Any, numbers: Sequence[int], cfg: Config) -> Iterator[SheetEntry]:  # noqa: ANN401
    classes, _ = class_colours(dataset)
    channels = channels_in_use(cfg)
    given = (cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor") or {}).get("shown")
    shown = None if channels is None else check_shown(given, channels)
    for number in numbers:
        sample = dataset[number]
        inputs = sample["inputs"]
        if isinstance(inputs, (list, tuple)):  # the first view of test-time augmentation
            inputs, sample = inputs[0], dict(data_samples=sample["data_samples"][0])
        element = sample["data_samples"]
        path = PurePath(str(element.metainfo.get("img_path") or f"sample {number}"))
        truth = read_truth(element, len(classes))
        if truth is not None and truth.semantic is None:  # objects alone: their map shows nothing new
            truth = truth._replace(panoptic=None)
        yield SheetEntry(path.stem, show_bands(inputs.numpy(), shown), truth, None)


def _keep_masks(dataset: MutableMapping) -> None:
    """Take out the transform that replaces masks by what training reads; the labels are the same."""
    for inner in dataset.get("datasets", ()):
        _keep_masks(inner)
    if "dataset" in dataset:
        _keep_masks(dataset["dataset"])
    if dataset.get("pipeline"):
        dataset["pipeline"] = [
            each for each in dataset["pipeline"] if str(each["type"]).rpartition(".")[2] != "CompactSegments"
        ]


def _numbers(length: int, samples: Sequence[int] | int, loop: str) -> Sequence[int]:
    if isinstance(samples, int):
        if samples < 1:
            raise InvalidValueError(f"--samples is {samples}; expected at least 1.")
        count = min(length, samples)
        return [number * length // count for number in range(count)]
    beyond = [number for number in samples if not 0 <= number < length]
    if beyond:
        raise InvalidValueError(
            f"--numbers {' '.join(map(str, beyond))}: expected 0 to {length - 1}, the samples of {loop}_dataloader."
        )
    return samples


def _stacked(rows: Sequence[Image.Image]) -> Image.Image:
    page = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    for index, row in enumerate(rows):
        page.paste(row, (0, sum(above.height for above in rows[:index])))
    return page
