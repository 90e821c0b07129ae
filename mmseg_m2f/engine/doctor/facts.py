"""What the files of a sample hold, read in parallel."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from mmseg_m2f.datasets.segments import Segment
from mmseg_m2f.datasets.stored_pixels import StoredPixels, read_stored_pixels
from mmseg_m2f.engine.class_agreement import leaf_datasets
from mmseg_m2f.errors import UserError, message_of
from mmseg_m2f.structures import IGNORE_INDEX

Histogram = dict[int, int]  # value -> pixels

_BOX_SLACK = 2.0  # pixels that a box may be off its mask


@dataclass
class SampleFacts:
    """One sample of a dataset; paths are empty and counts None where it has no such part."""

    image: str
    label: str = ""
    size: tuple[int, int] | None = None  # height, width
    channels: int | None = None
    pixels: StoredPixels | None = None
    digest: str = ""
    fault: str = ""  # why the image or its annotation cannot be read
    label_size: tuple[int, int] | None = None
    stored: Histogram = field(default_factory=dict)
    mapped: Histogram = field(default_factory=dict)  # by class
    objects: int | None = None
    segments: int = 0  # stuff of panoptic labels, which takes queries besides the objects
    absent: int = 0  # segments listed without a pixel
    crowds: int = 0
    classes: list[int] = field(default_factory=list)  # of the objects
    lost_objects: int = 0  # that the training pipeline left without pixels


def read_facts(dataset: object, indices: Sequence[int], *, workers: int, title: str) -> list[SampleFacts]:
    """The facts of some samples, with a progress bar.

    Args:
        workers: Threads that read.
    """
    leaves = [(leaf, index) for leaf in leaf_datasets(dataset) for index in range(len(leaf))]  # type: ignore[arg-type]
    chosen = [leaves[index] for index in indices if index < len(leaves)]
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:
        return list(tqdm(pool.map(lambda pair: _read(*pair), chosen), total=len(chosen), desc=title, unit="image"))


def spread(length: int, most: int | None) -> list[int]:
    """At most so many indices, evenly over all."""
    number = length if most is None else min(length, most)
    return [index * length // number for index in range(number)]


def total_histogram(facts: Sequence[SampleFacts], *, mapped: bool) -> Histogram:
    """The pixels of all label maps by value, as stored or as the model sees them."""
    total: Histogram = {}
    for sample in facts:
        for value, count in (sample.mapped if mapped else sample.stored).items():
            total[value] = total.get(value, 0) + count
    return total


def _read(dataset: Any, index: int) -> SampleFacts:  # noqa: ANN401  (datasets of any package)
    info = dataset.get_data_info(index)
    facts = SampleFacts(image=str(info.get("img_path") or f"sample {index}"), label=str(info.get("seg_map_path") or ""))
    keeps_bits = any(_keeps_bits(each) for each in dataset.pipeline.transforms)
    _read_image(facts, decode=not keeps_bits)
    _read_stored_label(facts)
    _read_objects(facts, info)
    if not facts.fault:
        _run_pipeline(facts, dataset, info)
    return facts


def _keeps_bits(transform: object) -> bool:
    """Whether a transform reads images of any number of channels and bits, which Pillow does not know."""
    parts = (transform, *getattr(transform, "transforms", ()))
    return any(getattr(part, "keeps_bits", False) for part in parts)


def _read_image(facts: SampleFacts, *, decode: bool) -> None:
    path = Path(facts.image)
    if not path.is_file():
        return
    facts.digest = hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
    if not decode:
        return
    facts.pixels = read_stored_pixels(path)
    try:
        with Image.open(path) as picture:
            facts.size, facts.channels = (picture.height, picture.width), len(picture.getbands())
            picture.load()
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        facts.fault = f"{path}: the image cannot be decoded ({error})"


def _read_stored_label(facts: SampleFacts) -> None:
    path = Path(facts.label)
    if not facts.label or facts.fault:
        return
    if not path.is_file():
        facts.fault = f"{path}: the label file does not exist"
        return
    try:
        with Image.open(path) as picture:
            stored = np.asarray(picture)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        facts.fault = f"{path}: the label file cannot be decoded ({error})"
        return
    facts.label_size = (int(stored.shape[0]), int(stored.shape[1]))
    if stored.ndim == 2:
        facts.stored = _histogram(stored)


def _read_objects(facts: SampleFacts, info: Mapping[str, Any]) -> None:
    instances = info.get("instances")
    if instances is None:
        return
    facts.objects = sum(not each.get("ignore_flag") for each in instances)
    facts.crowds = len(instances) - facts.objects
    facts.classes = [int(each["bbox_label"]) for each in instances if "bbox_label" in each]


def _run_pipeline(facts: SampleFacts, dataset: Any, info: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Load as training does; the labels after mapping, and the objects that a crop empties."""
    results: Any = info
    try:
        for transform in dataset.pipeline.transforms:
            results = transform(results)
            if results is None:
                break
            if facts.size is None and "img" in results:
                height, width, facts.channels = (*results["img"].shape, 1)[:3]
                facts.size = (height, width)
            if "gt_seg_map" in results and not facts.mapped:
                facts.mapped = _histogram(np.asarray(results["gt_seg_map"]))
                if "segments" in results:
                    _count_segments(facts, results["segments"], absent=len(results.get("absent_segments", ())))
    except UserError as error:
        facts.fault = message_of(error)
        return
    sample = None if results is None else results.get("data_samples")
    if facts.objects and sample is not None and "gt_instances" in sample:
        facts.lost_objects = max(facts.objects - len(sample.gt_instances), 0)


def _count_segments(facts: SampleFacts, segments: Sequence[Segment], *, absent: int) -> None:
    """Objects and stuff of a segment map, and its histogram by class instead of by segment."""
    numbers, facts.mapped = facts.mapped, {}
    for number, pixels in numbers.items():
        label = segments[number].category if number < len(segments) else IGNORE_INDEX
        facts.mapped[label] = facts.mapped.get(label, 0) + pixels
    present = [segments[number] for number in numbers if number < len(segments)]
    known = [segment for segment in present if segment.category != IGNORE_INDEX]
    facts.crowds = sum(segment.is_crowd for segment in known)
    facts.objects = sum(segment.is_thing and not segment.is_crowd for segment in known)
    facts.segments = sum(not segment.is_thing for segment in known)
    facts.classes = sorted({segment.category for segment in known})
    facts.absent = absent


def _histogram(values: np.ndarray) -> Histogram:
    found, counts = np.unique(values, return_counts=True)
    return {int(value): int(count) for value, count in zip(found, counts, strict=True)}


def is_box_off(annotation: Mapping[str, Any]) -> bool:
    """Whether the box of COCO's annotation (x, y, width, height) lies elsewhere than its polygons."""
    polygons, box = annotation.get("segmentation"), annotation.get("bbox")
    if not isinstance(polygons, list) or not box or len(box) != 4:
        return False
    polygons = [polygon for polygon in polygons if len(polygon) >= 6 and len(polygon) % 2 == 0]
    if not polygons:
        return False
    points = np.concatenate([np.asarray(polygon, dtype=float).reshape(-1, 2) for polygon in polygons])
    x, y, width, height = map(float, box)
    around = np.array([*points.min(0), *points.max(0)])
    return bool(np.abs(np.array([x, y, x + width, y + height]) - around).max() > _BOX_SLACK)


def duplicates(facts: Sequence[SampleFacts]) -> Iterator[tuple[str, str]]:
    """Pairs of images whose files are equal."""
    seen: dict[str, str] = {}
    for sample in facts:
        if sample.digest:
            if sample.digest in seen:
                yield seen[sample.digest], sample.image
            seen.setdefault(sample.digest, sample.image)
