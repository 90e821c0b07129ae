"""Finds images in the folder of a data set that it does not read, because their names end differently."""

import os
from collections.abc import Iterator
from logging import WARNING
from pathlib import Path

from mmengine.logging import print_log

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def report_unlisted_images(dataset: object, *, loop: str) -> None:
    """Log for each data set that lists a folder how many of its images are left out, and the first of them."""
    for part in _parts(dataset):
        images = unlisted_images(part)
        if images:
            more = " …" if len(images) > 5 else ""
            print_log(
                f"{loop}_dataloader.dataset ({type(part).__name__}): {len(images)} images are left out, because their "
                f"names do not end in img_suffix={part.img_suffix!r}: "  # type: ignore[attr-defined]
                f"{', '.join(images[:5])}{more}. Rename them, all with the same suffix in the same letters.",
                logger="current",
                level=WARNING,
            )


def unlisted_images(dataset: object) -> list[str]:
    """Paths, below the folder of images, of those that mmseg's way of listing it by `img_suffix` leaves out.

    Files with the name of an image that is read, or with the labels' suffix, are labels. Data sets that read a list of
    names choose their images, and leave out none.
    """
    folder = (getattr(dataset, "data_prefix", None) or {}).get("img_path")
    suffix, label_suffix = getattr(dataset, "img_suffix", None), getattr(dataset, "seg_map_suffix", None)
    ann_file = getattr(dataset, "ann_file", "")
    if not suffix or not folder or not os.path.isdir(folder) or (ann_file and not os.path.isdir(ann_file)):
        return []
    files = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    listed = {str(file)[: -len(suffix)] for file in files if file.name.endswith(suffix)}
    return sorted(
        file.relative_to(folder).as_posix()
        for file in files
        if file.suffix.lower() in _SUFFIXES
        and not file.name.endswith(suffix)
        and not (label_suffix and file.name.endswith(label_suffix))
        and str(file.with_suffix("")) not in listed
    )


def _parts(dataset: object) -> Iterator[object]:
    """The data sets below wrappers."""
    inner = getattr(dataset, "datasets", None) or [part for part in [getattr(dataset, "dataset", None)] if part]
    if not inner:
        yield dataset
    for part in inner:
        yield from _parts(part)
