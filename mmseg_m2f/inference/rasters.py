"""Images of any size on disk, read and written by parts: TIFF, GeoTIFF, PNG and whatever else GDAL reads.

Needs rasterio (the extra `large`).
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, cast

import numpy as np
from jaxtyping import Integer, Shaped
from numpy.typing import DTypeLike

from mmseg_m2f.datasets.band_files import check_bands
from mmseg_m2f.errors import InvalidTypeError, InvalidValueError, MissingFileError
from mmseg_m2f.files import unfinished_file
from mmseg_m2f.predictions.palettes import Palette

_CACHE_MB = 64  # of decoded blocks, for all open files
_NOISE_CELL = 32  # pixels


class Raster:
    """An open image, read by windows.

    Attributes:
        path: of the file.
        size: height and width in pixels.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        file: Any,  # noqa: ANN401 — rasterio ships no types
        *,
        num_channels: int | None = None,
    ) -> None:
        self.path, self._file, self._num_channels = os.fspath(path), file, num_channels
        self.size: tuple[int, int] = (file.height, file.width)
        self.georeference = dict(crs=file.crs, transform=file.transform) if file.crs is not None else {}

    def read(self, rows: slice, columns: slice) -> Shaped[np.ndarray, "H W C"]:
        """A part of the image, BGR as OpenCV reads it; grey images have three equal channels, alpha is left out.

        With a number of channels all of them, as float32 in the order of the file.

        Raises:
            ValueError: the file is damaged there, or holds NaN or infinite values.
        """
        rasterio = _rasterio()
        bgr = [3, 2, 1] if self._file.count >= 3 else [1, 1, 1]
        channels = bgr if self._num_channels is None else list(range(1, self._num_channels + 1))
        window = rasterio.windows.Window.from_slices((rows.start, rows.stop), (columns.start, columns.stop))
        try:
            pixels = self._file.read(channels, window=window)
        except rasterio.errors.RasterioIOError as error:
            cause = str(error.__cause__ or error).strip().partition("\n")[0]
            raise InvalidValueError(
                f"{self.path}: expected readable pixels in rows {rows.start}…{rows.stop - 1} and columns "
                f"{columns.start}…{columns.stop - 1}, got a damaged part ({cause}). Copy or export the file again."
            ) from error
        if self._num_channels is not None:
            return check_bands(pixels.transpose(1, 2, 0), channels=self._num_channels, source=self.path)
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))


@contextmanager
def open_raster(path: str | os.PathLike[str], *, num_channels: int | None = None) -> Iterator[Raster]:
    """Open an image of 8 bits with 1, 3 or 4 channels; with `num_channels` one of so many channels of any bits.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image, or one of other channels or bits.
    """
    rasterio = _rasterio()
    if not os.path.isfile(path):
        raise MissingFileError(
            f"{os.fspath(path)}: expected an image, got no file (working directory {os.getcwd()}). Correct the path."
        )
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            file = rasterio.open(path)
        except rasterio.errors.RasterioIOError as error:
            raise InvalidValueError(
                f"{os.fspath(path)}: expected an image that GDAL reads (TIFF, GeoTIFF, PNG, JPEG), got {error}."
            ) from error
        with file:
            kinds = {*file.dtypes[:3]}
            if num_channels is not None and file.count != num_channels:
                raise InvalidValueError(
                    f"{os.fspath(path)}: expected {num_channels} channels, as the model was trained on, got "
                    f"{file.count}. Convert it, for example with `gdal_translate -b 1 -b 2 ...`."
                )
            if num_channels is None and (file.count not in (1, 3, 4) or kinds != {"uint8"}):
                raise InvalidValueError(
                    f"{os.fspath(path)}: expected 1, 3 or 4 channels of uint8, got {file.count} of "
                    f"{', '.join(sorted(kinds))}. Convert it, for example with "
                    "`gdal_translate -ot Byte -scale -b 1 -b 2 -b 3`."
                )
            yield Raster(path, file, num_channels=num_channels)


class BandWriter:
    """A map that is written from top to bottom, some rows at a time."""

    def __init__(self, file: Any) -> None:  # noqa: ANN401 — rasterio ships no types
        self._file, self._next = file, 0

    def write(self, rows: Integer[np.ndarray, "_ W"]) -> None:
        """The rows below those before."""
        window = _rasterio().windows.Window(0, self._next, rows.shape[1], rows.shape[0])
        self._file.write(rows.astype(self._file.dtypes[0], copy=False), 1, window=window)
        self._next += rows.shape[0]


@contextmanager
def map_writer(
    path: str | os.PathLike[str], source: Raster, dtype: DTypeLike, *, palette: Palette | None = None
) -> Iterator[BandWriter]:
    """Write a map of an image's size as TIFF, with the image's georeference. The file appears complete or not at all.

    Args:
        palette: colours of the values, for maps of uint8.
    """
    rasterio = _rasterio()
    height, width = source.size
    shape = dict(driver="GTiff", height=height, width=width, count=1, dtype=np.dtype(dtype).name)
    packed = dict(compress="deflate", bigtiff="if_safer", **source.georeference)
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB), unfinished_file(path) as unfinished, warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(unfinished, "w", **shape, **packed) as file:
            if palette is not None and np.dtype(dtype) == np.uint8:
                file.write_colormap(1, {value: (*colour, 255) for value, colour in enumerate(palette[:256])})
            yield BandWriter(file)


def write_generated(path: str | os.PathLike[str], size: tuple[int, int], *, seed: int = 0) -> None:
    """Write an RGB image of coarse noise (height, width) as TIFF, some rows at a time."""
    rasterio = _rasterio()
    generator = np.random.default_rng(seed)
    height, width = size
    shape = dict(driver="GTiff", height=height, width=width, count=3, dtype="uint8", interleave="pixel")
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB), unfinished_file(path) as unfinished, warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(unfinished, "w", compress="deflate", bigtiff="if_safer", **shape) as file:
            for top in range(0, height, _NOISE_CELL):
                cells = generator.integers(256, size=(3, 1, -(-width // _NOISE_CELL)), dtype=np.uint8)
                band = cells.repeat(_NOISE_CELL, axis=2)[..., :width].repeat(min(_NOISE_CELL, height - top), axis=1)
                file.write(band, window=rasterio.windows.Window(0, top, width, band.shape[1]))


def _rasterio() -> ModuleType:
    try:
        import rasterio
        import rasterio.windows
    except ModuleNotFoundError as error:
        raise InvalidTypeError(
            "Images larger than the memory: expected the package rasterio, which is not installed. Run "
            '`pip install "mmseg-m2f[large]"`.'
        ) from error
    return cast(ModuleType, rasterio)
