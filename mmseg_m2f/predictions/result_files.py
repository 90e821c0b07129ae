"""Predictions as files: label maps as PNG, panoptic and instance results in COCO's formats.

Below one folder lie `labels/<name>.png` (class indices), `panoptic/<name>.png` (segment ids as colours) with
`panoptic.json`, and `instances.json`. Category and image ids are those of the data set; where it has none, the index of
the class and the path of the image. See `ImageNames` for the names.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmseg_m2f.core.postprocess import INSTANCE_OFFSET
from mmseg_m2f.files import save_json, save_png
from mmseg_m2f.predictions.file_names import ImageName
from mmseg_m2f.predictions.image_result import ImageResult, Objects
from mmseg_m2f.predictions.label_images import label_image, segment_image
from mmseg_m2f.predictions.palettes import Categories


class ImageRecord(NamedTuple):
    """What the JSON files say about one image; None where the model gives no such result."""

    name: ImageName
    size: tuple[int, int]
    segments: list[dict[str, object]] | None
    objects: list[dict[str, object]] | None


def write_maps(result: ImageResult, out_dir: Path, *, name: ImageName, categories: Categories) -> ImageRecord:
    """Write the PNG files of one image, and give what `write_records` needs."""
    segments = objects = None
    if result.semantic is not None:
        save_png(label_image(result.semantic, categories.palette), out_dir / "labels" / name.file)
    if result.panoptic is not None:
        numbered, segments = number_segments(result.panoptic, categories.ids)
        save_png(segment_image(numbered), out_dir / "panoptic" / name.file)
    if result.instances is not None:
        objects = coco_objects(result.instances, categories.ids)
    return ImageRecord(name, result.size, segments, objects)


def write_records(records: Sequence[ImageRecord], out_dir: Path, *, categories: Categories) -> None:
    """Write `panoptic.json` and `instances.json`, each in one step and only where there are such results.

    Of several records of an image the last one counts.
    """
    records = [*{record.name.image_id: record for record in records}.values()]
    panoptic = [record for record in records if record.segments is not None]
    if panoptic:
        images = [dict(id=r.name.image_id, file_name=r.name.image, height=r.size[0], width=r.size[1]) for r in panoptic]
        annotations = [
            dict(image_id=r.name.image_id, file_name=r.name.file, segments_info=r.segments) for r in panoptic
        ]
        described = [
            dict(id=category_id, name=name, color=list(colour))
            for category_id, name, colour in zip(categories.ids, categories.names, categories.palette, strict=True)
        ]
        save_json(dict(images=images, annotations=annotations, categories=described), out_dir / "panoptic.json")
    if any(record.objects is not None for record in records):
        found = [dict(image_id=record.name.image_id, **entry) for record in records for entry in record.objects or ()]
        save_json(found, out_dir / "instances.json")


def number_segments(
    panoptic: NDArray[np.int64], category_ids: Sequence[int | str]
) -> tuple[NDArray[np.int64], list[dict[str, object]]]:
    """The map with segments numbered from 1 (0 is void), and COCO's `segments_info`; boxes are x y width height.

    Args:
        panoptic: H W, class + 1000 · instance number; classes from K on are void.
        category_ids: K.
    """
    ids, inverse = np.unique(panoptic, return_inverse=True)
    inverse = inverse.reshape(panoptic.shape)
    known = (ids >= 0) & (ids % INSTANCE_OFFSET < len(category_ids))
    numbered = np.where(known, np.cumsum(known), 0)[inverse]
    infos: list[dict[str, object]] = []
    for index in known.nonzero()[0]:
        inside = inverse == index
        rows, columns = inside.any(1).nonzero()[0], inside.any(0).nonzero()[0]
        left, top = int(columns[0]), int(rows[0])
        infos.append(
            dict(
                id=len(infos) + 1,
                category_id=category_ids[ids[index] % INSTANCE_OFFSET],
                isthing=int(ids[index] >= INSTANCE_OFFSET),
                area=int(inside.sum()),
                bbox=[left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                iscrowd=0,
            )
        )
    return numbered, infos


def coco_objects(objects: Objects, category_ids: Sequence[int | str]) -> list[dict[str, object]]:
    """Entries of COCO's result format, the highest score first; without `segmentation` where there are no masks.

    Scores keep the precision of float32, so that no two change places.
    """
    boxes = objects.boxes_px.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    entries: list[dict[str, object]] = [
        dict(category_id=category_ids[label], score=float(str(score)), bbox=[round(v, 2) for v in box])
        for label, score, box in zip(objects.labels, objects.scores, boxes.tolist(), strict=True)
    ]
    if objects.masks is not None and entries:
        from pycocotools import mask as run_lengths  # comes with mmdet, without which no model finds objects

        columns_first = np.asfortranarray(objects.masks.transpose(1, 2, 0).astype(np.uint8))
        for entry, code in zip(entries, run_lengths.encode(columns_first), strict=True):
            entry["segmentation"] = dict(size=[int(side) for side in code["size"]], counts=code["counts"].decode())
    return entries
