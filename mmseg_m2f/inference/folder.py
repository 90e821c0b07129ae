"""Predictions for an image or a whole folder, as files."""

import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from mmseg_m2f.inference.predictor import Predictor
from mmseg_m2f.visualization import label_image, legend, overlay, save_png

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def predict_folder(
    predictor: Predictor, images: str | os.PathLike[str], out_dir: str | os.PathLike[str], *, opacity: float = 0.6
) -> list[str]:
    """Write for each image `<name>.png`, the overlay with its legend, and `labels/<name>.png`, class indices.

    Images of a folder keep their subfolders. An image that cannot be read is passed over.

    Args:
        images: An image, or a folder searched with its subfolders.
        opacity: Of the class colours over the image, 0...1.

    Returns:
        What was wrong with each image that was passed over.

    Raises:
        FileNotFoundError: `images` does not exist, or holds no image.
        ValueError: `opacity` is out of range.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is {opacity}; expected 0 (image alone) to 1 (colours alone). Choose one between.")
    root, names = _find_images(Path(images), besides=Path(out_dir))
    stems = Counter(name.with_suffix("") for name in names)
    faults = []
    for name in tqdm(names, unit="image", disable=len(names) < 2):
        try:
            image = predictor.read(root / name)
        except (FileNotFoundError, ValueError) as error:
            faults.append(str(error))
            continue
        # `a.jpg` and `a.png` side by side give `a.jpg.png` and `a.png.png`
        target = name.with_suffix(".png") if stems[name.with_suffix("")] == 1 else Path(f"{name}.png")
        _write(predictor, image, predictor(image), name=target, out_dir=Path(out_dir), opacity=opacity)
    return faults


def _write(
    predictor: Predictor, image: np.ndarray, labels: np.ndarray, *, name: Path, out_dir: Path, opacity: float
) -> None:
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    picture = Image.fromarray(overlay(rgb, labels, predictor.palette, opacity=opacity))
    strip = legend(predictor.classes, predictor.palette, width=max(picture.width, 240))
    page = Image.new("RGB", (strip.width, picture.height + strip.height), "white")
    page.paste(picture, (0, 0))
    page.paste(strip, (0, picture.height))
    save_png(page, out_dir / name)
    save_png(label_image(labels, predictor.palette), out_dir / "labels" / name)


def _find_images(path: Path, *, besides: Path) -> tuple[Path, list[Path]]:
    """The folder that output names are relative to, and the images in it; those below `besides` are output."""
    if path.is_file():
        return path.parent, [Path(path.name)]
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: expected an image or a folder of images, got neither (working directory {os.getcwd()}). "
            "Correct the path."
        )
    files = (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    names = sorted(p.relative_to(path) for p in files if besides.resolve() not in p.resolve().parents)
    if not names:
        raise FileNotFoundError(
            f"{path}: expected images ({', '.join(SUFFIXES)}), got a folder without any. Choose another folder."
        )
    return path, names
