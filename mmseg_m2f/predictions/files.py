"""Predictions as files: label maps as PNG, panoptic and instance results in COCO's formats.

Below one folder lie `labels/<name>.png` (class indices), `panoptic/<name>.png` (segment ids as colours) with
`panoptic.json`, and `instances.json`. A category id is the index of the class, an image id the image's file name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmseg_m2f.core.postprocess import INSTANCE_OFFSET
from mmseg_m2f.files import save_json, save_png
from mmseg_m2f.predictions.images import label_image, segment_image
from mmseg_m2f.predictions.palettes import Palette
from mmseg_m2f.predictions.prediction import Objects, Prediction


class ImageRecord(NamedTuple):
    """What the JSON files say about one image; None where the model does not answer.

    `image` is its file name, `segment_file` that of its panoptic PNG.
    """

    image: str
    segment_file: str
    size: tuple[int, int]
    segments: list[dict[str, object]] | None
    objects: list[dict[str, object]] | None


def write_maps(
    prediction: Prediction, out_dir: Path, *, file: str, image: str, num_classes: int, palette: Palette
) -> ImageRecord:
    """Write the PNG files of one image, and give what `write_records` needs.

    Args:
        file: what to call the files, with subfolders and suffix `.png`.
        image: what to call the image in the JSON files.
    """
    segments = objects = None
    if prediction.semantic is not None:
        save_png(label_image(prediction.semantic, palette), out_dir / "labels" / file)
    if prediction.panoptic is not None:
        numbered, segments = number_segments(prediction.panoptic, num_classes)
        save_png(segment_image(numbered), out_dir / "panoptic" / file)
    if prediction.instances is not None:
        objects = coco_objects(prediction.instances)
    return ImageRecord(image, file, prediction.size, segments, objects)


def write_records(records: Sequence[ImageRecord], out_dir: Path, *, classes: Sequence[str], palette: Palette) -> None:
    """Write `panoptic.json` and `instances.json`, each in one step and only where there are such answers."""
    panoptic = [record for record in records if record.segments is not None]
    if panoptic:
        images = [dict(id=r.image, file_name=r.image, height=r.size[0], width=r.size[1]) for r in panoptic]
        annotations = [dict(image_id=r.image, file_name=r.segment_file, segments_info=r.segments) for r in panoptic]
        categories = [
            dict(id=index, name=name, color=list(colour))
            for index, (name, colour) in enumerate(zip(classes, palette, strict=True))
        ]
        save_json(dict(images=images, annotations=annotations, categories=categories), out_dir / "panoptic.json")
    if any(record.objects is not None for record in records):
        found = [dict(image_id=record.image, **entry) for record in records for entry in record.objects or ()]
        save_json(found, out_dir / "instances.json")


def number_segments(panoptic: NDArray[np.int64], num_classes: int) -> tuple[NDArray[np.int64], list[dict[str, object]]]:
    """The map with segments numbered from 1 (0 is void), and COCO's `segments_info`; boxes are x y width height."""
    ids, inverse = np.unique(panoptic, return_inverse=True)
    inverse = inverse.reshape(panoptic.shape)
    known = (ids >= 0) & (ids % INSTANCE_OFFSET < num_classes)
    numbered = np.where(known, np.cumsum(known), 0)[inverse]
    infos: list[dict[str, object]] = []
    for index in known.nonzero()[0]:
        inside = inverse == index
        rows, columns = inside.any(1).nonzero()[0], inside.any(0).nonzero()[0]
        left, top = int(columns[0]), int(rows[0])
        infos.append(
            dict(
                id=len(infos) + 1,
                category_id=int(ids[index] % INSTANCE_OFFSET),
                isthing=int(ids[index] >= INSTANCE_OFFSET),
                area=int(inside.sum()),
                bbox=[left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                iscrowd=0,
            )
        )
    return numbered, infos


def coco_objects(objects: Objects) -> list[dict[str, object]]:
    """Entries of COCO's result format, the highest score first; without `segmentation` where there are no masks."""
    boxes = objects.boxes_px.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    entries: list[dict[str, object]] = [
        dict(category_id=int(label), score=round(float(score), 5), bbox=[round(v, 2) for v in box])
        for label, score, box in zip(objects.labels, objects.scores, boxes.tolist(), strict=True)
    ]
    if objects.masks is not None and entries:
        from pycocotools import mask as run_lengths  # comes with mmdet, without which no model finds objects

        columns_first = np.asfortranarray(objects.masks.transpose(1, 2, 0).astype(np.uint8))
        for entry, code in zip(entries, run_lengths.encode(columns_first), strict=True):
            entry["segmentation"] = dict(size=[int(side) for side in code["size"]], counts=code["counts"].decode())
    return entries
