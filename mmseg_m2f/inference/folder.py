"""Predictions for an image or a whole folder, as files."""

import os
from collections import Counter
from pathlib import Path

import cv2
from tqdm import tqdm

from mmseg_m2f.errors import InvalidValueError, MissingFileError
from mmseg_m2f.files import save_png
from mmseg_m2f.inference.predictor import Predictor
from mmseg_m2f.predictions.files import ImageRecord, write_maps, write_records
from mmseg_m2f.visualization import annotate

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def predict_folder(
    predictor: Predictor,
    images: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    opacity: float = 0.6,
    score_threshold: float = 0.5,
) -> list[str]:
    """Write for each image `<name>.png`, the overlay with its legend, and what the model answers as files.

    These are `labels/<name>.png` (class indices), `panoptic/<name>.png` with `panoptic.json`, and `instances.json`, in
    the formats of `predictions.files`. The JSON files are written at the end, also when the user interrupts, and hold
    the images so far. Images of a folder keep their subfolders. An image that cannot be read is passed over.

    Args:
        images: An image, or a folder searched with its subfolders.
        opacity: Of the class colours over the image, 0...1.
        score_threshold: Objects with a lower score are not drawn; `instances.json` lists them all.

    Returns:
        What was wrong with each image that was passed over.

    Raises:
        FileNotFoundError: `images` does not exist, or holds no image.
        ValueError: `opacity` or `score_threshold` is out of range, or the model answers nothing.
    """
    if not 0 <= opacity <= 1:
        raise InvalidValueError(
            f"opacity is {opacity}; expected 0 (image alone) to 1 (colours alone). Choose one between."
        )
    if not 0 <= score_threshold <= 1:
        raise InvalidValueError(
            f"score_threshold is {score_threshold}; expected 0 (draw all) to 1. Choose one between."
        )
    root, names = _find_images(Path(images), besides=Path(out_dir))
    stems = Counter(name.with_suffix("") for name in names)
    classes, palette, folder = predictor.classes, predictor.palette, Path(out_dir)
    faults: list[str] = []
    records: list[ImageRecord] = []
    try:
        for name in tqdm(names, unit="image", disable=len(names) < 2):
            try:
                image = predictor.read(root / name)
            except (FileNotFoundError, ValueError) as error:
                faults.append(str(error))
                continue
            # `a.jpg` and `a.png` side by side give `a.jpg.png` and `a.png.png`
            file = f"{name.with_suffix('') if stems[name.with_suffix('')] == 1 else name}.png"
            prediction = predictor(image)
            rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            page = annotate(rgb, prediction, classes, palette, opacity=opacity, score_threshold=score_threshold)
            save_png(page, folder / file)
            records.append(
                write_maps(
                    prediction, folder, file=file, image=name.as_posix(), num_classes=len(classes), palette=palette
                )
            )
    finally:
        write_records(records, folder, classes=classes, palette=palette)
    return faults


def _find_images(path: Path, *, besides: Path) -> tuple[Path, list[Path]]:
    """The folder that output names are relative to, and the images in it; those below `besides` are output."""
    if path.is_file():
        return path.parent, [Path(path.name)]
    if not path.is_dir():
        raise MissingFileError(
            f"{path}: expected an image or a folder of images, got neither (working directory {os.getcwd()}). "
            "Correct the path."
        )
    files = (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    names = sorted(p.relative_to(path) for p in files if besides.resolve() not in p.resolve().parents)
    if not names:
        raise MissingFileError(
            f"{path}: expected images ({', '.join(SUFFIXES)}), got a folder without any. Choose another folder."
        )
    return path, names
