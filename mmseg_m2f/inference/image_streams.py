"""Images one after the other: out of files, folders, videos, arrays, and lists of all these."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from mmseg_m2f.errors import InvalidTypeError, InvalidValueError, MissingFileError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".npy")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")

_One: TypeAlias = str | os.PathLike[str] | NDArray
Source: TypeAlias = _One | Iterable[_One]


@dataclass(frozen=True)
class NamedImage:
    """An image and what to call it: its path, `VIDEO#FRAME` or `#NUMBER` of an array, counted from 0."""

    name: str
    pixels: NDArray


@dataclass(frozen=True)
class ImageStream:
    """Images that are read when their turn comes.

    Attributes:
        images: what iterating gives, once.
        length: how many; None where that is not known beforehand.
    """

    images: Iterator[NamedImage]
    length: int | None


def open_sources(source: Source | object, read: Callable[[str], NDArray]) -> ImageStream:
    """The images of a file, a folder (with its subfolders), a video, an array, or several of these.

    Paths are looked at here, pixels only later.

    Args:
        source: arrays are H W C, or N H W C for several images.
        read: gives the pixels of an image file.

    Raises:
        FileNotFoundError: nothing is there, or a folder holds no images.
        ValueError: a video cannot be opened, or an array has other axes.
        TypeError: it is none of these.
    """
    if isinstance(source, np.ndarray):
        return _array(source)
    if isinstance(source, (str, os.PathLike)):
        return _path(Path(source), read)
    if not isinstance(source, Iterable):
        raise InvalidTypeError(
            f"Predictor.stream: expected paths, arrays or a list of them, got {type(source).__name__}."
        )
    if not isinstance(source, (list, tuple)):  # a generator: read as it comes
        return ImageStream((image for each in source for image in open_sources(each, read).images), None)
    streams = [open_sources(each, read) for each in source]
    lengths = [stream.length for stream in streams]
    total = None if None in lengths else sum(length or 0 for length in lengths)
    return ImageStream((image for stream in streams for image in stream.images), total)


def find_images(folder: Path) -> list[Path]:
    """The images below a folder, in the order of their paths, with links that lead nowhere, which reading will name.

    Raises:
        FileNotFoundError: there is none.
    """
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    files = sorted(path for path in found if path.is_file() or (path.is_symlink() and not path.exists()))
    if not files:
        raise MissingFileError(
            f"{folder}: expected images ({', '.join(SUFFIXES)}), got a folder without any. Choose another folder."
        )
    return files


def _path(path: Path, read: Callable[[str], NDArray]) -> ImageStream:
    if path.is_dir():
        files = find_images(path)
        return ImageStream((NamedImage(str(file), read(str(file))) for file in files), len(files))
    if not path.is_file():
        raise MissingFileError(
            f"{path}: expected an image, a video or a folder, got none of them (working directory {os.getcwd()}). "
            "Correct the path."
        )
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return _video(path)
    return ImageStream((NamedImage(str(each), read(str(each))) for each in (path,)), 1)


def _array(array: NDArray) -> ImageStream:
    if array.ndim not in (3, 4):
        raise InvalidValueError(
            f"Predictor.stream: expected an array H W C, or N H W C of several images, got shape {array.shape}."
        )
    images = array[None] if array.ndim == 3 else array
    return ImageStream((NamedImage(f"#{number}", image) for number, image in enumerate(images)), len(images))


def _video(path: Path) -> ImageStream:
    """Frames of a video as OpenCV decodes them: BGR."""
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise InvalidValueError(
            f"{path}: expected a video that OpenCV decodes, got one that it cannot open. Convert it, for example with "
            "`ffmpeg -i IN -c:v libx264 OUT.mp4`."
        )
    length = int(video.get(cv2.CAP_PROP_FRAME_COUNT))

    def frames() -> Iterator[NamedImage]:
        number = 0
        try:
            while True:
                there, pixels = video.read()
                if not there:
                    break
                yield NamedImage(f"{path}#{number}", pixels)
                number += 1
        finally:
            video.release()
        if number == 0:
            raise InvalidValueError(f"{path}: expected frames, got a video without any that can be decoded.")

    return ImageStream(frames(), length if length > 0 else None)
