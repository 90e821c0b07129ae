"""Images one after the other: out of files, folders, videos, arrays, and lists of all these."""

import math
import os
import warnings
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


@dataclass(frozen=True)
class Video:
    """Frames that are decoded when their turn comes.

    Attributes:
        frames: BGR H W 3 as OpenCV decodes them, once.
        length: how many the file says that it has; None where it does not say.
        frames_per_second: 25 where the file does not say.
    """

    path: Path
    frames: Iterator[NDArray]
    length: int | None
    frames_per_second: float

    def fault(self, decoded: int) -> str | None:
        """What is wrong where so many frames were decoded; counts of some containers are off by a hundredth."""
        if self.length is None or self.length - decoded <= max(1, self.length // 100):
            return None
        return (
            f"{self.path}: expected {self.length} frames, as the file says, got {decoded} that can be decoded. "
            "Fetch or convert it again if it is cut off."
        )


def open_video(path: Path) -> Video:
    """A video file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: OpenCV does not decode its first frame.
    """
    if not path.is_file():
        raise MissingFileError(
            f"{path}: expected a video, got no file (working directory {os.getcwd()}). Correct the path."
        )
    capture = cv2.VideoCapture(str(path))
    there, first = capture.read()
    if not there:
        capture.release()
        raise InvalidValueError(
            f"{path} ({path.stat().st_size} bytes): expected a video that OpenCV decodes, got one of which it decodes "
            "no frame. Convert it, for example with `ffmpeg -i IN -c:v libx264 OUT.mp4`, or fetch it again."
        )
    length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    rate = capture.get(cv2.CAP_PROP_FPS)

    def frames() -> Iterator[NDArray]:
        there, pixels = True, first
        try:
            while there:
                yield pixels
                there, pixels = capture.read()
        finally:
            capture.release()

    return Video(path, frames(), length if length > 0 else None, rate if 0 < rate < math.inf else 25.0)


def open_sources(source: Source | object, read: Callable[[str], NDArray]) -> ImageStream:
    """The images of a file, a folder (with its subfolders), a video, an array, or several of these.

    Paths are looked at here, pixels only later.

    Args:
        source: arrays are H W C, or N H W C for several images.
        read: gives the pixels of an image file.

    Raises:
        FileNotFoundError: nothing is there, or a folder holds no images.
        ValueError: a video cannot be decoded, or an array has other axes.
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
    video = open_video(path)

    def frames() -> Iterator[NamedImage]:
        number = -1
        for number, pixels in enumerate(video.frames):
            yield NamedImage(f"{path}#{number}", pixels)
        fault = video.fault(number + 1)
        if fault is not None:
            warnings.warn(fault, stacklevel=2)

    return ImageStream(frames(), video.length)
