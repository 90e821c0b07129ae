"""How a picture file stores its pixels, read from its header alone."""

import os
import struct
import warnings
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from mmseg_m2f.errors import InvalidValueError

_ORIENTATION_TAG = 0x0112
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339
_TIFF_FLOAT, _TIFF_WHITE_IS_ZERO = 3, 0
_PNG_DEPTH_BYTE = 24
# What Pillow raises on headers that are broken.
_BROKEN = (
    *(UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError, EOFError, struct.error),
    *(TypeError, LookupError, ZeroDivisionError, OverflowError, MemoryError, AttributeError),
)
_LOSSY = ("JPEG", "MPO", "JPEG2000")


class StoredPixels(NamedTuple):
    """Facts about a file's pixels."""

    format: str
    """As Pillow names it: JPEG, PNG, TIFF …"""
    bits: int
    """Of one channel, or of an index into a palette."""
    is_float: bool
    is_grey: bool
    has_palette: bool
    is_inverted: bool
    """White is 0, as some TIFF files have it."""
    num_pages: int
    """Pictures in a TIFF or GIF file."""
    orientation: int
    """EXIF's: 1 upright, 2-4 mirrored or upside down, 5-8 lying on a side."""

    @property
    def is_lossy(self) -> bool:
        """Whether the format changes values."""
        return self.format in _LOSSY

    @property
    def is_sideways(self) -> bool:
        """Whether turning the picture upright exchanges height and width."""
        return self.orientation >= 5


def read_stored_pixels(path: object) -> StoredPixels | None:
    """The facts about a local file; None for other files and those that Pillow does not know."""
    if not isinstance(path, (str, Path)) or not os.path.isfile(path):
        return None
    try:
        with Image.open(path) as picture:
            tags = getattr(picture, "tag_v2", {})
            return StoredPixels(
                format=str(picture.format),
                bits=_bits(path, picture),
                is_float=picture.mode == "F" or _TIFF_FLOAT in _numbers(tags.get(_TIFF_SAMPLE_FORMAT)),
                is_grey=len(picture.getbands()) == 1 and picture.mode != "P",
                has_palette=picture.mode in ("P", "PA"),
                is_inverted=tags.get(_TIFF_PHOTOMETRIC) == _TIFF_WHITE_IS_ZERO,
                num_pages=_count_pages(picture),
                orientation=_orientation(picture),
            )
    except _BROKEN:
        return None  # the decoder that reads the pixels says what is wrong


def check_num_pixels(path: str | os.PathLike[str]) -> None:
    """Refuse a file whose header says more pixels than Pillow takes, whichever decoder is to read it.

    The limit is twice `PIL.Image.MAX_IMAGE_PIXELS`: 178,956,970 pixels unless the program sets another one.

    Raises:
        ValueError: It has more.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # between once and twice that number
            Image.open(path).close()
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise InvalidValueError(
            f"Image {os.fspath(path)}: expected at most {limit:,} pixels, got more ({error}). Resize it, cut it into "
            "parts, or predict it alone with --large (`mmseg_m2f.inference.large_image.predict_large`), which reads "
            "images of any size window by window."
        ) from error
    except _BROKEN:
        return  # the decoder that reads the pixels says what is wrong


def _bits(path: str | Path, picture: Image.Image) -> int:
    if picture.format == "PNG":
        with open(path, "rb") as file:
            return file.read(_PNG_DEPTH_BYTE + 1)[_PNG_DEPTH_BYTE]
    if picture.format == "TIFF":
        return max(_numbers(picture.tag_v2.get(_TIFF_BITS)), default=1)  # type: ignore[attr-defined]
    return {"1": 1, "I;16": 16, "I;16B": 16, "I": 32, "F": 32}.get(picture.mode, 8)


def _count_pages(picture: Image.Image) -> int:
    """Pictures in a TIFF or GIF file; 2 where the first promises more that cannot be found."""
    try:
        return getattr(picture, "n_frames", 1) if picture.format in ("TIFF", "GIF") else 1
    except _BROKEN:
        return 2


def _orientation(picture: Image.Image) -> int:
    if picture.format == "PNG" and "exif" not in picture.info:
        return 1  # asking Pillow would decode the whole file
    orientation = picture.getexif().get(_ORIENTATION_TAG, 1)
    return orientation if orientation in range(1, 9) else 1


def _numbers(tag: object) -> tuple[int, ...]:
    """The values of a TIFF tag, of which Pillow gives one alone without its tuple."""
    if tag is None:
        return ()
    return tuple(tag) if isinstance(tag, tuple) else (int(tag),)  # type: ignore[call-overload]
