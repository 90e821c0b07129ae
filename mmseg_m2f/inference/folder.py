"""Predictions for an image or a whole folder, as files."""

import errno
import os
from pathlib import Path

import cv2
from numpy.typing import NDArray
from tqdm import tqdm

from mmseg_m2f.errors import InvalidValueError, MissingFileError
from mmseg_m2f.files import save_png
from mmseg_m2f.inference.image_streams import SUFFIXES, find_images
from mmseg_m2f.inference.predictor import Predictor
from mmseg_m2f.predictions import ImageResult
from mmseg_m2f.predictions.file_names import ImageName, result_files
from mmseg_m2f.predictions.palettes import Categories
from mmseg_m2f.predictions.result_files import ImageRecord, write_maps, write_records
from mmseg_m2f.visualization import annotate
from mmseg_m2f.visualization.bands import show_bands

# What resizing and the model raise for images of extreme sizes; an image alone must not end the run.
_UNUSABLE = (ValueError, RuntimeError, MemoryError, ZeroDivisionError, AssertionError, cv2.error)


def predict_folder(
    predictor: Predictor,
    images: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    opacity: float = 0.6,
    score_threshold: float = 0.5,
) -> list[str]:
    """Write for each image `<name>.png`, the overlay with its legend, and what the model predicts as files.

    These are `labels/<name>.png` (class indices), `panoptic/<name>.png` with `panoptic.json`, and `instances.json`, in
    the formats of `predictions.result_files`. The JSON files are written at the end, also when the user interrupts, and
    hold the images so far. Images of a folder keep their subfolders; `predictions.file_names.result_files` gives their
    names. An image that cannot be read or predicted is passed over.

    Args:
        images: An image, or a folder searched with its subfolders.
        opacity: Of the class colours over the image, 0...1.
        score_threshold: Objects with a lower score are not drawn; `instances.json` lists them all.

    Returns:
        What was wrong with each image that was passed over.

    Raises:
        FileNotFoundError: `images` does not exist, or holds no image.
        ValueError: `opacity` or `score_threshold` is out of range, or the model predicts nothing.
    """
    check_drawing(opacity, score_threshold)
    root, images_below = _find_images(Path(images), besides=Path(out_dir))
    categories = Categories(predictor.classes, predictor.palette, predictor.category_ids)
    folder = Path(out_dir)
    faults: list[str] = []
    records: list[ImageRecord] = []
    try:
        for image, file in tqdm(
            [*zip(images_below, result_files(images_below), strict=True)], unit="image", disable=len(images_below) < 2
        ):
            try:
                pixels = predictor.read(root / image)
                result = predict_pixels(predictor, pixels, f"Image {root / image}")
                rgb = show_bands(pixels.transpose(2, 0, 1), predictor.shown)
                page = annotate(
                    rgb, result, categories.names, categories.palette, opacity=opacity, score_threshold=score_threshold
                )
                save_png(page, folder / file)
                name = ImageName(file, image.as_posix(), image.as_posix())
                records.append(write_maps(result, folder, name=name, categories=categories))
            except (FileNotFoundError, ValueError) as error:
                faults.append(str(error))
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                faults.append(
                    f"Image {root / image}: expected a name that leaves room for that of its results, got one too long "
                    f"for {error.filename}. Shorten it."
                )
    finally:
        write_records(records, folder, categories=categories)
    return faults


def predict_pixels(predictor: Predictor, pixels: NDArray, source: str) -> ImageResult:
    """The result of an image.

    Args:
        source: What messages call the image.

    Raises:
        ValueError: It cannot be resized, like one of a single row, or does not fit into memory.
    """
    try:
        return predictor(pixels)
    except _UNUSABLE as error:
        height, width = pixels.shape[:2]
        raise InvalidValueError(
            f"{source} is {height} x {width} (height x width) and cannot be predicted: "
            f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}. Crop or resize it, or leave it out."
        ) from error


def check_drawing(opacity: float, score_threshold: float) -> None:
    """Check what pictures are drawn with.

    Raises:
        ValueError: One is below 0 or above 1.
    """
    if not 0 <= opacity <= 1:
        raise InvalidValueError(
            f"opacity is {opacity}; expected 0 (image alone) to 1 (colours alone). Choose one between."
        )
    if not 0 <= score_threshold <= 1:
        raise InvalidValueError(
            f"score_threshold is {score_threshold}; expected 0 (draw all) to 1. Choose one between."
        )


def _find_images(path: Path, *, besides: Path) -> tuple[Path, list[Path]]:
    """The folder that output names are relative to, and the images in it; those below `besides` are output."""
    if path.is_file():
        return path.parent, [Path(path.name)]
    if not path.is_dir():
        raise MissingFileError(
            f"{path}: expected an image or a folder of images, got neither (working directory {os.getcwd()}). "
            "Correct the path."
        )
    files = find_images(path)
    names = [p.relative_to(path) for p in files if besides.resolve() not in p.resolve().parents]
    if not names:
        raise MissingFileError(
            f"{path}: expected images ({', '.join(SUFFIXES)}), got a folder without any. Choose another folder."
        )
    return path, names
