"""Reading the files that say which pixel belongs to which segment: COCO's panoptic PNGs, Cityscapes' instance ids."""

import io
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.fileio import get
from numpy.typing import NDArray
from PIL import Image

from mmseg_m2f.datasets.load_label_map import check_sums
from mmseg_m2f.datasets.segment_conversion import finish_segments
from mmseg_m2f.datasets.segments import Segment
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import TRANSFORMS
from mmseg_m2f.structures import IGNORE_INDEX

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}

# Cityscapes' label ids in the order of the 19 classes ("train ids"), and how many of them, at the end, are things.
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_CITYSCAPES_FIRST_THING = 11
_CITYSCAPES_MOST = 33
_CITYSCAPES_PLATE = 65535  # -1, a licence plate, in 16 bits


@TRANSFORMS.register_module()
class LoadPanoptic(BaseTransform):
    """Reads a panoptic PNG in COCO's format: the colour of a pixel is its segment's id, R + 256 G + 65536 B.

    Reads `seg_map_path` and `segments_info` (id, class, is thing, is crowd; as `CocoPanoptic` gives them). Adds
    `gt_seg_map` (H W, int16, index into `segments`, void 255 where the id is 0) and `segments`; those without a pixel
    are left out, and their classes listed in `absent_segments`, which `PanopticQuality` counts as missed. Crowds and
    segments of no class are not listed. `SegmentsToObjects` or `SegmentsToLabels` then make of it what a model trains
    on. Wrap it in `CheckedLoading`, which names missing, truncated and wrongly sized files.

    Raises:
        ValueError: The file is no RGB PNG of 8 bits, or has ids that the JSON file does not list.
    """

    def transform(self, results: dict) -> dict:
        """`results` with the segment map and the list of segments."""
        path = results["seg_map_path"]
        ids = _read_ids(path)
        infos = results["segments_info"]
        listed = np.asarray([0, *(info[0] for info in infos)])
        order = listed.argsort()
        rows = order[np.searchsorted(listed[order], ids).clip(max=len(listed) - 1)]
        wrong = np.unique(ids[listed[rows] != ids])
        if len(wrong):
            raise InvalidValueError(
                f"Panoptic label {path}: expected the segment ids of {results.get('img_path')} in the JSON file "
                f"({_shorten(sorted(listed[1:].tolist()))}) or 0 for void, got {_shorten(wrong.tolist())} as well. "
                "Add these segments to the image's segments_info, or set their pixels to 0."
            )
        segments = [Segment(category, is_thing, 0, is_crowd) for _, category, is_thing, is_crowd in infos]
        results["gt_seg_map"], results["segments"] = finish_segments(rows - 1, segments)
        results["absent_segments"] = _absent_segments(rows, segments)
        results.setdefault("seg_fields", []).append("gt_seg_map")
        return results


@TRANSFORMS.register_module()
class LoadCityscapesSegments(BaseTransform):
    """Reads Cityscapes' `*_gtFine_instanceIds.png`, as published; nothing has to be converted.

    A value below 1000 is a label id: stuff, or things that nobody separated (a crowd). Others are label id · 1000 +
    number of the object. Adds `gt_seg_map` (H W, int16, index into `segments`, void 255) and `segments`, with the 19
    classes in their usual order (road is 0, bicycle 18; things from 11 on). Label ids that are not evaluated are void.

    Raises:
        ValueError: The file has values that are no such ids.
    """

    def transform(self, results: dict) -> dict:
        """`results` with the segment map and the list of segments."""
        path = results["seg_map_path"]
        data = get(path)
        check_sums(data)
        with Image.open(io.BytesIO(data)) as picture:
            ids = np.asarray(picture).astype(np.int64)
        values, rows = np.unique(ids, return_inverse=True)
        label_ids = np.where(values < 1000, values, values // 1000)
        wrong = values[(label_ids > _CITYSCAPES_MOST) & (values != _CITYSCAPES_PLATE)]
        if ids.ndim != 2 or len(wrong):
            raise InvalidValueError(
                f"Cityscapes label {path}: expected one channel of ids (0…{_CITYSCAPES_MOST}, or such an id · 1000 + "
                f"object), got shape {ids.shape} with {_shorten(wrong.tolist())}. Set the dataset's "
                "seg_map_suffix='_gtFine_instanceIds.png'."
            )
        classes = {label_id: index for index, label_id in enumerate(_CITYSCAPES_IDS)}
        categories = [classes.get(label_id, IGNORE_INDEX) for label_id in label_ids.tolist()]
        segments = [
            _cityscapes_segment(category, value >= 1000)
            for category, value in zip(categories, values.tolist(), strict=True)
        ]
        results["gt_seg_map"], results["segments"] = finish_segments(rows.reshape(ids.shape), segments)
        results.setdefault("seg_fields", []).append("gt_seg_map")
        return results


def _absent_segments(rows: NDArray[np.integer], segments: Sequence[Segment]) -> tuple[int, ...]:
    """The classes of the segments without a pixel, less crowds and void, of which nothing can be missed.

    Args:
        rows: H W, 1 + index into `segments`.
    """
    present = {*np.unique(rows).tolist()}
    return tuple(
        segment.category
        for row, segment in enumerate(segments, start=1)
        if row not in present and segment.category != IGNORE_INDEX and not segment.is_crowd
    )


def _cityscapes_segment(category: int, is_object: bool) -> Segment:
    is_thing = category >= _CITYSCAPES_FIRST_THING
    return Segment(category, is_thing, 0, is_crowd=is_thing and not is_object)


def _read_ids(path: str) -> NDArray[np.int32]:
    """H W: the segment id of each pixel."""
    data = get(path)
    if data[: len(_PNG_START)] != _PNG_START and len(data) > len(_PNG_START):
        raise InvalidValueError(
            f"Panoptic label {path}: expected a PNG, got a file that begins with {data[:8]!r}. Write the ids anew "
            "as RGB PNG; lossy formats such as JPEG change them."
        )
    depth, colours = (data[24], data[25]) if len(data) > 25 else (8, 2)  # Pillow says that shorter files are broken
    if depth != 8 or colours not in (2, 6):
        raise InvalidValueError(
            f"Panoptic label {path}: expected a PNG with 8 bits RGB (segment id = R + 256 G + 65536 B), got {depth} "
            f"bits {_PNG_COLOURS.get(colours, 'of unlisted colours')}. Write the ids as RGB; a map of class indices is "
            "a semantic label and needs another dataset."
        )
    check_sums(data)
    with Image.open(io.BytesIO(data)) as picture:
        pixels = np.asarray(picture.convert("RGB") if picture.mode != "RGBA" else picture, dtype=np.int32)
    return pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]


def _shorten(values: list) -> str:
    return ", ".join(map(str, values[:8])) + (f" and {len(values) - 8} more" if len(values) > 8 else "")
