"""What every reader of a foreign format gives: images of a split, each with a label map, with objects, or with both."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np
from jaxtyping import Bool, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mmseg_m2f.datasets.load_label_map import LoadLabelMap
from mmseg_m2f.errors import InvalidValueError, MissingFileError

VOID = 255
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class FoundObject:
    """One object: its class and its mask at the size of the image."""

    label: int
    mask: Bool[np.ndarray, "H W"]


@dataclass(frozen=True)
class Example:
    """One annotated image.

    Args:
        image: The file.
        name: Path of the image below its split, without suffix.
        labels: Class of every pixel, 255 where nothing is known; None where the format has none.
        objects: None where the format has none.
    """

    image: Path
    name: str
    labels: UInt8[np.ndarray, "H W"] | None = None
    objects: Sequence[FoundObject] | None = None


@dataclass(frozen=True)
class ForeignData:
    """A data set as read: names and colours of its classes, and its images by split.

    Args:
        splits: Iterators, so that one image is in memory at a time.
    """

    classes: Sequence[str]
    splits: dict[str, Iterator[Example]]
    palette: Sequence[Sequence[int]] = field(default_factory=tuple)


def find_image(folder: Path, name: str, *, needed_by: Path | str) -> Path:
    """The image of a name, whatever its suffix.

    Raises:
        FileNotFoundError: There is none.
    """
    for suffix in SUFFIXES:
        for written in (suffix, suffix.upper()):
            if (found := folder / f"{name}{written}").is_file():
                return found
    raise MissingFileError(
        f"{needed_by}: expected an image {folder / name}.jpg or another of {', '.join(SUFFIXES)}, got none. Copy the "
        "images beside their annotations, or take the entry out."
    )


def read_names(file: Path) -> list[str]:
    """The lines of a list of images, without empty ones and without blanks around a name.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A name occurs twice, or is that of no file.
    """
    if not file.is_file():
        raise MissingFileError(f"{file}: no such list of images. Expected one name on each line.")
    names = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    repeated = [name for name, number in Counter(names).items() if number > 1]
    if repeated:
        raise InvalidValueError(f"{file}: expected each name once, got {repeated[:8]} repeatedly. Remove the lines.")
    odd = [name for name in names if not name.isprintable() or ".." in PurePath(name).parts or name.startswith("/")]
    if odd:
        raise InvalidValueError(f"{file}: expected names of images below the folder, got {odd[0]!r}. Correct the line.")
    return names


def require_class_names(names: Sequence[str], *, file: Path | str) -> None:
    """Raise ValueError unless each name is printable text that occurs once."""
    counts = Counter(names)
    odd = [name for name in counts if counts[name] > 1 or not name.strip() or not name.isprintable()]
    if odd or not names:
        raise InvalidValueError(
            f"{file}: expected the name of each class once, in letters, got {odd[:8] or 'none'}. Correct the names."
        )


def read_text(file: Path) -> str:
    """The text of a file.

    Raises:
        ValueError: It is none in UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"{file}: expected text in UTF-8, got other bytes ({error}). Save it anew.") from error


@contextmanager
def opened(file: Path) -> Iterator[Image.Image]:
    """A picture, whose decoding may also fail later.

    Raises:
        ValueError: It cannot be decoded.
    """
    try:
        with Image.open(file) as picture:
            yield picture
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidValueError(
            f"{file}: expected a complete picture, got {error}. Copy or export it again."
        ) from error


def image_size(image: Path) -> tuple[int, int]:
    """Height and width; only the header is read."""
    with opened(image) as picture:
        return picture.height, picture.width


def draw_polygon(points: NDArray[np.float64], size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """The pixels of a polygon (N × 2, x and y in pixels) in an image of some height and width; borders belong to it.

    Coordinates are rounded to a hundredth of a pixel: fractions of a side that were written with few digits do not fall
    into the pixel before.
    """
    picture = Image.new("1", size[::-1])
    ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in np.round(points, 2)], fill=1, outline=1)
    return np.asarray(picture)


def flatten(objects: Sequence[FoundObject], size: tuple[int, int], *, background: int) -> UInt8[np.ndarray, "H W"]:
    """A label map of objects: later ones lie over earlier ones."""
    labels = np.full(size, background, np.uint8)
    for found in objects:
        labels[found.mask] = found.label
    return labels


def split_segments(
    labels: UInt8[np.ndarray, "H W"], numbers: NDArray[np.int64], *, background: Sequence[int] = ()
) -> list[FoundObject]:
    """Objects of a map of object numbers (0 is none); the class is the most frequent one of their known pixels."""
    found = []
    for number in np.unique(numbers):
        mask = numbers == number
        counts = np.bincount(labels[mask & (labels != VOID)], minlength=1)
        label = int(counts.argmax())
        if number != 0 and counts.sum() and label not in background:
            found.append(FoundObject(label, mask))
    return found


def read_colours(file: Path) -> NDArray[np.int64]:
    """A colour picture (H W) as one number for each pixel: R · 65536 + G · 256 + B, each in 0…255.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: More than 8 bits, a lossy format, or a broken file.
    """
    _read_stored(file)
    with opened(file) as picture:
        if picture.mode not in ("1", "L", "P", "RGB", "RGBA"):
            raise InvalidValueError(f"{file}: expected colours of 8 bits, got {picture.mode}. Save it as an RGB PNG.")
        return _colour_numbers(np.asarray(picture.convert("RGB"), dtype=np.int64))


def read_numbers(file: Path) -> NDArray[np.int64]:
    """A map of object numbers (H W): values as stored, of any number of bits, or one number for each colour.

    Raises:
        FileNotFoundError, ValueError: As of `read_colours`.
    """
    stored = _read_stored(file).astype(np.int64)
    if stored.ndim == 2:
        return stored
    if stored.shape[2] not in (3, 4):
        raise InvalidValueError(f"{file}: expected numbers or colours, got {stored.shape[2]} channels. Save it as RGB.")
    return _colour_numbers(stored)


def _colour_numbers(colours: NDArray[np.int64]) -> NDArray[np.int64]:
    return colours[..., 0] * 65536 + colours[..., 1] * 256 + colours[..., 2]


def _read_stored(file: Path) -> np.ndarray:
    """Values as they are stored, H W or H W C.

    Raises:
        FileNotFoundError: There is none.
        ValueError: A lossy format, fractions, several pages, or a broken file.
    """
    if not file.is_file():
        raise MissingFileError(f"{file}: no such mask. Expected one for each image.")
    with opened(file):
        return LoadLabelMap().transform(dict(seg_map_path=str(file), seg_fields=[]))["gt_seg_map"]


def read_indices(file: Path) -> UInt8[np.ndarray, "H W"]:
    """A picture of indices: grey values or palette entries, as stored.

    Raises:
        FileNotFoundError: There is none.
        ValueError: Colours, values beyond 255, a lossy format, or a broken file.
    """
    labels = _read_stored(file)
    if labels.ndim != 2 or labels.dtype != np.uint8:
        found = "colours" if labels.ndim != 2 else f"values up to {labels.max()}"
        raise InvalidValueError(
            f"{file}: expected grey values or palette entries of 8 bits, got {found}. Give the colours of the classes "
            "in a labelmap (--labelmap), or save indices below 256."
        )
    return labels


def require_known(labels: UInt8[np.ndarray, "H W"], num_classes: int, *, file: Path) -> None:
    """Raise ValueError where a label is neither a class nor void."""
    odd = labels[(labels >= num_classes) & (labels != VOID)]
    if odd.size:
        raise InvalidValueError(
            f"{file}: {odd.size} pixels have a label that is no class's, such as {odd[0]}. Expected labels below "
            f"{num_classes}, or {VOID} for void; name all classes, or correct the mask."
        )


def name_colours(
    colours: NDArray[np.int64], palette: Sequence[Sequence[int]], *, file: Path
) -> UInt8[np.ndarray, "H W"]:
    """The class of each colour.

    Raises:
        ValueError: A colour that is no class's.
    """
    labels = np.full(colours.shape, VOID, np.uint8)
    known = np.zeros(colours.shape, bool)
    for label, (red, green, blue) in enumerate(palette):
        is_class = colours == red * 65536 + green * 256 + blue
        labels[is_class] = label
        known |= is_class
    if not known.all():
        odd = int(colours[~known][0])
        raise InvalidValueError(
            f"{file}: {int((~known).sum())} pixels have a colour that is no class's, such as "
            f"{(odd >> 16, odd >> 8 & 255, odd & 255)}. Expected the colours of the labelmap: add a line for it, or "
            "save the mask without smoothing and compression."
        )
    return labels
