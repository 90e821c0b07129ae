"""A small data set of images with six channels of 16 bits: the labels follow from the last channel alone."""

import warnings
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image

CHANNELS = 6


def draw_bands(seed: int, size: tuple[int, int] = (48, 64)) -> tuple[np.ndarray, np.ndarray]:
    """An image H W 6 (uint16) and its labels H W."""
    generator = np.random.default_rng(seed)
    labels = np.kron(generator.integers(0, 2, (size[0] // 16, size[1] // 16)), np.ones((16, 16), int)).astype(np.uint8)
    image = generator.integers(0, 3000, (*size, CHANNELS)).astype(np.uint16)
    image[..., -1] += labels.astype(np.uint16) * 20000
    return image, labels


def save_tiff(image: np.ndarray, path: Path) -> None:
    """H W C as one page."""
    height, width, count = image.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", height=height, width=width, count=count, dtype=image.dtype.name
        ) as file:
            file.write(image.transpose(2, 0, 1))


def write_band_data(root: Path, *, suffix: str = ".tif", num_images: int = 2) -> None:
    """`images/{train,val}` and `labels/{train,val}`."""
    for number, split in enumerate(("train", "val")):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for index in range(num_images):
            image, labels = draw_bands(10 * number + index)
            if suffix == ".npy":
                np.save(root / f"images/{split}/{index}.npy", image)
            else:
                save_tiff(image, root / f"images/{split}/{index}{suffix}")
            Image.fromarray(labels).save(root / f"labels/{split}/{index}.png")
