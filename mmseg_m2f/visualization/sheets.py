"""Legends, and sheets that show input, truth and prediction of several images."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mmseg_m2f.core.postprocess import INSTANCE_OFFSET
from mmseg_m2f.predictions import KINDS, ImageResult, Kind, resize_result
from mmseg_m2f.predictions.palettes import Palette
from mmseg_m2f.visualization.fonts import Font, drawable_names, font_of
from mmseg_m2f.visualization.overlays import overlay_result

_TEXT = (40, 40, 40)
_FONT_SIZE = 13
_GAP = 6
_NARROWEST = 256
MOST_IN_LEGEND = 24  #: classes; of a longer list a legend names those that occur
_SHOWN = ("truth", "prediction")  # of each kind of result


class SheetEntry(NamedTuple):
    """One image of a contact sheet. Truth and prediction may be of another size, but show the same view."""

    name: str
    image: NDArray[np.uint8]
    truth: ImageResult | None
    prediction: ImageResult | None


def scale_entry(entry: SheetEntry, width: int) -> SheetEntry:
    """The same at another width, as a sheet with that `cell_width` shows it; saves memory until it is drawn."""
    height = max(round(entry.image.shape[0] * width / entry.image.shape[1]), 1)
    picture = Image.fromarray(entry.image).resize((width, height), Image.Resampling.BICUBIC)
    truth, prediction = (
        None if shown is None else resize_result(shown, (height, width)) for shown in (entry.truth, entry.prediction)
    )
    return SheetEntry(entry.name, np.asarray(picture), truth, prediction)


def legend(classes: Sequence[str], palette: Palette, *, width: int) -> Image.Image:
    """A white strip `width` pixels wide with a swatch and a name for each class, and one for void."""
    entries = [*zip(drawable_names(classes), palette, strict=True), ("void", None)]
    swatch, line = 16, 22
    column = min(max(int(font_of(name, _FONT_SIZE).getlength(name)) for name, _ in entries) + swatch + 22, width)
    columns = max(width // column, 1)
    strip = Image.new("RGB", (width, line * -(-len(entries) // columns)), "white")
    draw = ImageDraw.Draw(strip)
    for index, (name, colour) in enumerate(entries):
        x, y = column * (index % columns) + 2, line * (index // columns) + 3
        draw.rectangle((x, y, x + swatch, y + swatch), fill=tuple(colour or (220, 220, 220)), outline=_TEXT)
        if colour is None:
            for offset in (4, 10, 16):
                draw.line((x, y + offset, x + offset, y), fill="black", width=2)
        draw.text((x + swatch + 6, y + 8), name, fill=_TEXT, font=font_of(name, _FONT_SIZE), anchor="lm")
    return strip


def contact_sheet(
    entries: Sequence[SheetEntry],
    classes: Sequence[str],
    palette: Palette,
    *,
    cell_width: int = 256,
    opacity: float = 0.75,
    score_threshold: float = 0.5,
    with_legend: bool = True,
) -> Image.Image:
    """One column for each image: input, truth, prediction below each other, and the legend of the classes.

    Each image is scaled to `cell_width`; the row is as high as the highest. Truth and prediction repeat for each kind
    of result that the predictions have; of one image alone, each kind has a column. What is missing leaves its cell
    empty; without any prediction there are no rows for them. A sheet of up to 24 classes names them all, a longer list
    is cut to those that occur. Objects of a single class need no legend.

    Args:
        score_threshold: objects with a lower score are left out.
        with_legend: False leaves the legend out.
    """
    kinds, classes = _kinds(entries), drawable_names(classes)
    predicted = not entries or any(entry.prediction is not None for entry in entries)
    which = _SHOWN if predicted else _SHOWN[:1]
    scaled = [scale_entry(entry, cell_width) for entry in entries]
    groups = [[kind] for kind in kinds] if len(scaled) == 1 and kinds else [kinds]
    headings = [f"{entry.name}, {group[0]}" if len(groups) > 1 else entry.name for entry in scaled for group in groups]
    columns = [
        _column(entry, group, classes, palette, which=which, opacity=opacity, score_threshold=score_threshold)
        for entry in scaled
        for group in groups
    ]
    rows = ["input"]
    for kind in groups[0]:
        rows += [f"{kind}\n{name}" if len(groups[0]) > 1 else name for name in which]
    heights = [max((column[row].height for column in columns), default=1) for row in range(len(rows))]
    margin, top = 84, 24
    width = margin + max(len(columns), 1) * (cell_width + _GAP)
    strip = Image.new("RGB", (1, 1), "white")
    if with_legend:
        strip = _sheet_legend(scaled, kinds, classes, palette, width=width - 2 * _GAP, score_threshold=score_threshold)
    height = top + sum(heights) + _GAP * (len(rows) + 1) + strip.height + _GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (heading, column) in enumerate(zip(headings, columns, strict=True)):
        x = margin + index * (cell_width + _GAP)
        font = font_of(heading, _FONT_SIZE)
        draw.text((x + cell_width // 2, top // 2), _shorten(heading, font, cell_width), _TEXT, font, anchor="mm")
        for row, cell in enumerate(column):
            sheet.paste(cell, (x, top + sum(heights[:row]) + _GAP * row))
    for row, name in enumerate(rows):
        y = top + sum(heights[:row]) + _GAP * row + heights[row] // 2
        draw.text((margin - 8, y), name, fill=_TEXT, font=font_of(name, _FONT_SIZE), anchor="rm", align="right")
    sheet.paste(strip, (_GAP, height - strip.height - _GAP))
    return sheet


def annotate(
    image: NDArray[np.uint8],
    prediction: ImageResult,
    classes: Sequence[str],
    palette: Palette,
    *,
    opacity: float = 0.6,
    score_threshold: float = 0.5,
    with_legend: bool = True,
) -> Image.Image:
    """The results for an image drawn over it, side by side, and the legend below them.

    A narrow image is enlarged so that names can be read. The legend is that of `contact_sheet`; `with_legend=False`
    leaves it out.
    """
    classes = drawable_names(classes)
    entry = scale_entry(SheetEntry("", image, None, prediction), max(image.shape[1], _NARROWEST))
    kinds = prediction.kinds()
    cells = _column(entry, kinds, classes, palette, opacity=opacity, score_threshold=score_threshold)[2::2]
    width = sum(cell.width for cell in cells) + _GAP * (len(cells) - 1)
    strip = Image.new("RGB", (width, 0))
    if with_legend:
        strip = _sheet_legend([entry], kinds, classes, palette, width=width, score_threshold=score_threshold)
    page = Image.new("RGB", (width, entry.image.shape[0] + strip.height), "white")
    for index, cell in enumerate(cells):
        page.paste(cell, (index * (cell.width + _GAP), 0))
    page.paste(strip, (0, entry.image.shape[0]))
    return page


def _kinds(entries: Sequence[SheetEntry]) -> list[Kind]:
    """The kinds of results that the predictions have; without any, what the annotations say."""
    predictions = [entry.prediction for entry in entries if entry.prediction is not None]
    known = predictions or [entry.truth for entry in entries if entry.truth is not None]
    return [kind for kind in KINDS if any(kind in result.kinds() for result in known)]


def _column(
    entry: SheetEntry,
    kinds: Sequence[Kind],
    classes: Sequence[str],
    palette: Palette,
    *,
    which: Sequence[str] = _SHOWN,
    opacity: float,
    score_threshold: float,
) -> list[Image.Image]:
    """The input, and truth and prediction of each kind; an empty cell for what is missing."""
    picture = Image.fromarray(entry.image)
    cells = [picture]
    for kind in kinds:
        for name in which:
            shown: ImageResult | None = getattr(entry, name)
            if shown is None or kind not in shown.kinds():
                cells.append(Image.new("RGB", picture.size, (240, 240, 240)))
                continue
            tinted = overlay_result(
                entry.image,
                shown,
                kind,
                classes,
                palette,
                opacity=opacity,
                score_threshold=score_threshold,
                show_scores=shown is entry.prediction,
            )
            cells.append(Image.fromarray(tinted))
    return cells


def _sheet_legend(
    entries: Sequence[SheetEntry],
    kinds: Sequence[Kind],
    classes: Sequence[str],
    palette: Palette,
    *,
    width: int,
    score_threshold: float,
) -> Image.Image:
    if len(classes) == 1 and list(kinds) == ["instances"]:
        return Image.new("RGB", (width, 1), "white")
    shown: Sequence[int] = range(len(classes))
    if len(classes) > MOST_IN_LEGEND:
        results = [r for entry in entries for r in (entry.truth, entry.prediction) if r is not None]
        present = set().union(*(_present(result, kinds, score_threshold) for result in results))
        shown = sorted(present & set(shown))
    return legend([classes[i] for i in shown], [palette[i] for i in shown], width=width)


def _present(result: ImageResult, kinds: Sequence[Kind], score_threshold: float) -> set[int]:
    """The labels that are drawn."""
    present: set[int] = set()
    if "semantic" in kinds and result.semantic is not None:
        present |= set(np.unique(result.semantic).tolist())
    if "panoptic" in kinds and result.panoptic is not None:
        present |= set(np.unique(result.panoptic % INSTANCE_OFFSET).tolist())
    if "instances" in kinds and result.instances is not None:
        present |= set(result.instances.labels[result.instances.scores >= score_threshold].tolist())
    return present


def _shorten(text: str, font: Font, width: int) -> str:
    """The text, or its end behind an ellipsis where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    kept = text
    while kept and font.getlength("..." + kept) > width:
        kept = kept[1:]
    return "..." + kept
