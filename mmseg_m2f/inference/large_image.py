"""Prediction for an image of any size: read, predicted and written window by window.

Memory holds one window, one band of the maps and the objects found so far (each mask without the emptiness around it).
Stuff and label maps are what the window says that owns a pixel; objects are joined by the rules of
`core.window_objects`.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import IO, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Integer
from mmengine.config import ConfigDict
from numpy.typing import NDArray

from mmseg_m2f.core.postprocess import INSTANCE_OFFSET, Instances
from mmseg_m2f.core.window_objects import (
    FoundObjects,
    JoinedObject,
    found_objects,
    found_segments,
    join_objects,
    own_part,
)
from mmseg_m2f.core.windows import Window, WindowGrid, divide, window_grid
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.files import save_json
from mmseg_m2f.inference.predictor import Predictor
from mmseg_m2f.inference.rasters import BandWriter, Raster, map_writer, open_raster
from mmseg_m2f.models.segmentors.sliding import window_scales
from mmseg_m2f.predictions import ImageResult, Objects
from mmseg_m2f.predictions.run_lengths import encode_crop

_TOO_LARGE_FOR_BYTE = 256


def predict_large(predictor: Predictor, image: str | os.PathLike[str], out_dir: str | os.PathLike[str]) -> list[Path]:
    """Write what the model finds in an image of any size, and give the files.

    These are `<name>_labels.tif` (class indices, with a palette), `<name>_panoptic.tif` (segment ids, 0 is void) with
    `<name>_panoptic.json` (COCO's `segments_info`), and `<name>_instances.json` (COCO's results, masks as run
    lengths). Maps have the georeference of the image.

    Windows have the size, stride and scale of the model's `test_cfg`, in pixels of the file times the scale; resizing
    in the test pipeline is left out. Predictions of other windows are not averaged.

    Args:
        predictor: of a model with `test_cfg.mode="slide"`.
        image: a file that GDAL reads: of 8 bits or, with option `channels`, of so many channels of any bits.

    Raises:
        FileNotFoundError: the image is missing.
        ValueError: the model has no windows or several scales, or the image cannot be read.
    """
    settings = ConfigDict(getattr(predictor.model, "test_cfg", None) or {})
    if settings.get("mode") != "slide":
        raise InvalidValueError(
            f"Predicting {os.fspath(image)} by parts: expected a model that predicts through windows "
            f"(model.test_cfg.mode='slide'), got mode {settings.get('mode')!r}. Set window_size, e.g. to the crop size "
            "of training."
        )
    scales = window_scales(settings)
    if len(scales) > 1:
        raise InvalidValueError(
            f"Predicting {os.fspath(image)} by parts: expected one model.test_cfg.scale, got {list(scales)}: windows "
            "are written one after another, at one scale. Set window_scale to one factor."
        )
    scale = float(scales[0])
    crop, stride = (_in_file(settings[key], scale) for key in ("crop_size", "stride"))
    predictor.model.test_cfg = ConfigDict(settings, mode="whole", scale=1.0)  # each window is an image
    try:
        with open_raster(image, num_channels=predictor.num_channels) as raster:
            stem = Path(out_dir) / Path(image).stem
            grid = window_grid(raster.size, crop, stride)
            return _Run(predictor, raster, grid, scale=scale, min_iou=settings.get("min_iou", 0.5), stem=stem).write()
    finally:
        predictor.model.test_cfg = settings


class _Run:
    """One image on its way from windows to files, all of which begin with `stem`."""

    def __init__(
        self, predictor: Predictor, raster: Raster, grid: WindowGrid, *, scale: float, min_iou: float, stem: Path
    ) -> None:
        self.predictor, self.raster, self.grid = predictor, raster, grid
        self.scale, self.min_iou, self.stem = scale, min_iou, stem
        self.objects: list[FoundObjects] = []
        self.segments: list[FoundObjects] = []
        self.written: list[Path] = []

    def write(self) -> list[Path]:
        """Predict all windows, then join objects and segments; gives the files.

        Raises:
            ValueError: The model predicts nothing that can be written.
        """
        with ExitStack() as stack:
            stuff = stack.enter_context(tempfile.TemporaryFile())
            labels: BandWriter | None = None
            kinds: set[str] = set()
            for bands in self._bands():
                kinds = set(bands)
                if "semantic" in bands:
                    labels = labels or stack.enter_context(self._map("labels", predicted=True))
                    labels.write(bands["semantic"])
                if "panoptic" in bands:
                    stuff.write(bands["panoptic"].astype(np.uint16).tobytes())
            if "panoptic" in kinds:
                self._write_panoptic(stuff)
        if self.objects:
            self._write_instances()
        if not self.written:
            raise InvalidValueError(
                f"{self.raster.path}: expected label maps, panoptic maps or masks of objects from the model, got none. "
                "A MaskDetector predicts what its test_cfg says."
            )
        return self.written

    def _bands(self) -> Iterator[dict[str, NDArray[np.int64]]]:
        """The own rows of each row of windows: label map, and stuff (K for things and nothing)."""
        windows = iter(self.grid)
        width, num_classes = self.raster.size[1], len(self.predictor.classes)
        for start, stop in divide(self.grid.rows):
            bands: dict[str, NDArray[np.int64]] = {}
            for _ in self.grid.columns:
                window = next(windows)
                result = self._predict(window)
                own = _own_pixels(window)
                for kind, seen in (("semantic", result.semantic), ("panoptic", result.panoptic)):
                    if seen is not None:
                        band = bands.setdefault(kind, np.full((stop - start, width), num_classes, np.int64))
                        band[:, window.own_columns] = seen[own]
                if result.panoptic is not None:
                    self.segments.append(found_segments(result.panoptic, window))
                    band = bands["panoptic"]
                    band[band >= INSTANCE_OFFSET] = num_classes
                if result.instances is not None and result.instances.masks is not None:
                    self.objects.append(_cropped(result.instances, window))
            yield bands

    def _predict(self, window: Window) -> ImageResult:
        pixels = self.raster.read(window.rows, window.columns)
        size = pixels.shape[:2]
        if self.scale != 1:
            method = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
            width, height = (max(1, round(side * self.scale)) for side in (size[1], size[0]))
            pixels = cv2.resize(pixels, (width, height), interpolation=method)
        return self.predictor.predict_part(pixels, size)

    def _map(self, kind: str, *, predicted: bool) -> AbstractContextManager[BandWriter]:
        path = self.stem.with_name(f"{self.stem.name}_{kind}.tif")
        self.written.append(path)
        small = predicted and len(self.predictor.classes) < _TOO_LARGE_FOR_BYTE
        dtype = (np.uint8 if small else np.uint16) if predicted else np.uint32
        return map_writer(path, self.raster, dtype, palette=self.predictor.palette if small else None)

    def _write_instances(self) -> None:
        found = join_objects(self.grid, self.objects, min_iou=self.min_iou)
        entries = []
        for each in found:
            top, left, bottom, right = each.box
            entries.append(
                dict(
                    image_id=Path(self.raster.path).name,
                    category_id=self.predictor.category_ids[each.label],
                    score=each.score,
                    bbox=[left, top, right - left, bottom - top],
                    segmentation=encode_crop(each.crop, (top, left), self.raster.size),
                )
            )
        path = self.stem.with_name(f"{self.stem.name}_instances.json")
        save_json(entries, path)
        self.written.append(path)

    def _write_panoptic(self, stuff: IO[bytes]) -> None:
        """Number things and stuff from 1, and write the map band by band: stuff, things on it."""
        things = join_objects(self.grid, self.segments, min_iou=self.min_iou)
        num_classes, (height, width) = len(self.predictor.classes), self.raster.size
        ids = [number + 1 for number in range(len(things))]
        number_of = np.zeros(num_classes + 1, np.uint32)
        number_of[:num_classes] = len(things) + 1 + np.arange(num_classes)
        pieces = _pieces(things, self.grid, self.segments)
        areas = np.zeros(len(things) + num_classes + 1, np.int64)
        stuff.seek(0)
        with self._map("panoptic", predicted=False) as writer:
            for start, stop in divide(self.grid.rows):
                content = stuff.read(2 * (stop - start) * width)
                band = number_of[np.frombuffer(content, np.uint16).reshape(-1, width)]
                for piece in pieces:
                    piece.put(band, start)
                areas += np.bincount(band.ravel(), minlength=len(areas))
                writer.write(band)
        infos = [
            dict(
                id=number,
                category_id=self.predictor.category_ids[label],
                isthing=int(number <= len(things)),
                area=int(areas[number]),
                iscrowd=0,
            )
            for number, label in [
                *zip(ids, (each.label for each in things), strict=True),
                *((int(number_of[label]), label) for label in range(num_classes)),
            ]
            if areas[number]
        ]
        path = self.stem.with_name(f"{self.stem.name}_panoptic.json")
        save_json(dict(height=height, width=width, segments_info=infos), path)
        self.written.append(path)


class _Piece(NamedTuple):
    """A mask with the value it gets in a map."""

    box: tuple[int, int, int, int]
    crop: Bool[np.ndarray, "_ _"]
    value: int

    def put(self, band: Integer[np.ndarray, "_ W"], top: int) -> None:
        """Set the mask's pixels in the rows of a map from `top` on."""
        first, last = max(self.box[0], top), min(self.box[2], top + len(band))
        if first < last:
            cut = self.crop[first - self.box[0] : last - self.box[0]]
            band[first - top : last - top, self.box[1] : self.box[3]][cut] = self.value


def _in_file(sides: Sequence[int], scale: float) -> tuple[int, int]:
    """Height and width in pixels of the file."""
    height, width = (max(1, round(side / scale)) for side in sides)
    return height, width


def _own_pixels(window: Window) -> tuple[slice, slice]:
    """The pixels of a window that it owns, counted from its corner."""
    top, left = window.rows.start, window.columns.start
    return (
        slice(window.own_rows.start - top, window.own_rows.stop - top),
        slice(window.own_columns.start - left, window.own_columns.stop - left),
    )


def _cropped(objects: Objects, window: Window) -> FoundObjects:
    assert objects.masks is not None
    arrays = (objects.scores, objects.labels, objects.boxes_px, objects.masks)
    return found_objects(Instances(*map(torch.from_numpy, arrays)), window)


def _pieces(things: Sequence[JoinedObject], grid: WindowGrid, found: Sequence[FoundObjects]) -> list[_Piece]:
    """In the order of painting: whole things, the smaller ones last; then each window's own pixels of them."""
    order = sorted(range(len(things)), key=lambda number: -np.count_nonzero(things[number].crop))
    pieces = [_Piece(things[number].box, things[number].crop, number + 1) for number in order]
    id_of = {part: number + 1 for number, each in enumerate(things) for part in each.parts}
    for index, (window, objects) in enumerate(zip(grid, found, strict=True)):
        for part in range(len(objects.labels)):
            if (index, part) in id_of:
                (rows, columns), crop = own_part(objects, part, window)
                pieces.append(_Piece((rows.start, columns.start, rows.stop, columns.stop), crop, id_of[index, part]))
    return pieces
