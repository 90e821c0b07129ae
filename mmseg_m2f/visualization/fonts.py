"""Fonts that have the characters of class names, and what is drawn where none has."""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import matplotlib
from matplotlib.font_manager import findSystemFonts
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

Font: TypeAlias = ImageFont.ImageFont | ImageFont.FreeTypeFont


def font_of(text: str, size: int) -> Font:
    """A font of this size in pixels that has all characters of the text; Pillow's own where none has.

    Pillow's own is taken for ASCII; then matplotlib's DejaVu Sans (European and further scripts), then the system's.
    """
    file = None if text.isascii() else _file_with(frozenset(text))
    return ImageFont.load_default(size) if file is None else _load(file, size)


def drawable_names(names: Sequence[str]) -> list[str]:
    """The names, those that no font can draw replaced by their numbers, which a warning says."""
    drawn = [
        name if name.isascii() or _file_with(frozenset(name)) is not None else str(index)
        for index, name in enumerate(names)
    ]
    lost = [name for name, other in zip(names, drawn, strict=True) if name != other]
    if lost:
        warnings.warn(
            f"No font has the characters of {len(lost)} class names ({', '.join(lost[:3])} …); pictures show the "
            "numbers of these classes. Install a font that has them, such as Noto Sans CJK.",
            stacklevel=3,
        )
    return drawn


@lru_cache(maxsize=1024)
def _file_with(characters: frozenset[str]) -> str | None:
    """The first font file that has all characters but spaces."""
    codes = {ord(character) for character in characters if not character.isspace()}
    return next((file for file in _files() if codes <= _codes(file)), None)


@lru_cache(maxsize=1)
def _files() -> tuple[str, ...]:
    shipped = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return (str(shipped), *sorted(findSystemFonts()))


@lru_cache(maxsize=256)
def _codes(file: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(file).get_charmap())
    except (RuntimeError, OSError):  # a broken font, or one that FreeType does not know
        return frozenset()


@lru_cache(maxsize=64)
def _load(file: str, size: int) -> Font:
    return ImageFont.truetype(file, size)
