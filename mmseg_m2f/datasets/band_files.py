"""Images of any number of channels and bits, in files: NPY arrays, and what GDAL reads (TIFF, GeoTIFF, PNG …).

TIFF needs rasterio (the extra `large`). NPY files are read as data: pickled objects in them are refused.
"""

import io
import os
import warnings
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32
from mmengine.fileio import get
from numpy.typing import NDArray

from mmseg_m2f.errors import InvalidTypeError, InvalidValueError


def read_bands(
    path: str | os.PathLike[str], *, channels: int, backend_args: Mapping[str, object] | None = None
) -> Float32[np.ndarray, "H W C"]:
    """The pixels of a file, with the values that it stores and in its order of channels.

    An NPY file holds H W C or, where its last axis is not `channels` long and its first one is, C H W; H W for one
    channel.

    Raises:
        FileNotFoundError: the file is missing.
        OSError: GDAL cannot read it.
        ValueError: it has another number of channels, values that are no real numbers, or NaN or infinite ones.
        TypeError: rasterio is not installed.
    """
    data = get(os.fspath(path), backend_args=backend_args)
    source = f"Image {os.fspath(path)}"
    if os.fspath(path).lower().endswith(".npy"):
        return check_bands(_channels_last(_read_npy(data, source), channels), channels=channels, source=source)
    return check_bands(_read_raster(data, source, channels), channels=channels, source=source)


def check_bands(pixels: NDArray, *, channels: int, source: str) -> Float32[np.ndarray, "H W C"]:
    """An image as float32, once it is sure that it is one.

    Args:
        pixels: H W C of any real type.
        source: what to call the image in a message.

    Raises:
        ValueError: another shape, another number of channels, no real numbers, or NaN or infinite values.
    """
    if not (np.issubdtype(pixels.dtype, np.integer) or np.issubdtype(pixels.dtype, np.floating)):
        raise InvalidValueError(f"{source}: expected integers or floats, got {pixels.dtype}. Convert it.")
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise InvalidValueError(
            f"{source}: expected height, width and {channels} channels, got shape {pixels.shape}. Save it as H W C."
        )
    if pixels.shape[2] != channels:
        raise InvalidValueError(
            f"{source}: expected {channels} channels (option channels), got {pixels.shape[2]}. All images of a data "
            "set have the same channels in the same order: convert this one, or set "
            f"channels={pixels.shape[2]} if all are so."
        )
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(pixels, dtype=np.float32)
    wrong = values.size - np.count_nonzero(np.isfinite(values))
    if wrong:
        raise InvalidValueError(
            f"{source}: expected finite numbers, got NaN or infinity in {wrong} of {values.size} values. Replace them, "
            "for example by 0, and let the label be void (255) there."
        )
    return values


def _read_npy(data: bytes, source: str) -> NDArray:
    try:
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        raise InvalidValueError(
            f"{source} ({len(data):,} bytes): expected an array of numbers as numpy.save writes it, got a file that "
            f"cannot be read as one: {error}. Save it again."
        ) from error


def _channels_last(array: NDArray, channels: int) -> NDArray:
    if array.ndim == 2 and channels == 1:
        return array[..., None]
    if array.ndim == 3 and array.shape[2] != channels and array.shape[0] == channels:
        return array.transpose(1, 2, 0)
    return array


def _read_raster(data: bytes, source: str, channels: int) -> NDArray:
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning
        from rasterio.io import MemoryFile
    except ModuleNotFoundError as error:
        raise InvalidTypeError(
            f"{source}: expected the package rasterio, which reads images of any number of channels and is not "
            'installed. Run `pip install "mmseg-m2f[large]"`, or save the images as NPY files.'
        ) from error
    with rasterio.Env(), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with MemoryFile(data) as memory, memory.open() as file:
            if file.count != channels and len(file.subdatasets) == channels:
                raise InvalidValueError(
                    f"{source}: expected {channels} channels in one picture, got a TIFF file with "
                    f"{len(file.subdatasets)} pages of {file.count}. Save the pages as channels of one page, or as NPY."
                )
            return file.read().transpose(1, 2, 0)
