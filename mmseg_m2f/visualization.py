"""Pictures of labels and of training: overlays, legends, contact sheets, curves.

Images are H W 3 uint8 arrays in RGB, labels H W integer arrays of class indices, and a palette is one RGB
triple (0-255) for each class. Nothing here shows a window or touches pyplot's global state.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Palette: TypeAlias = Sequence[Sequence[int]]

IGNORE_INDEX = 255
_TEXT = (40, 40, 40)
_FONT_SIZE = 13
_GAP = 6


class SheetEntry(NamedTuple):
    """One image of a contact sheet. The label maps may be of another size, but show the same view."""

    name: str
    image: NDArray[np.uint8]
    truth: NDArray[np.integer] | None
    prediction: NDArray[np.integer] | None


class Curve(NamedTuple):
    """Values over iterations, both of length N, iterations ascending."""

    iterations: NDArray[np.integer]
    values: NDArray[np.floating]


def distinct_palette(num_classes: int) -> list[tuple[int, int, int]]:
    """Colours for classes that come without: the same ones each time, neighbours far apart in hue."""
    colours = []
    for index in range(num_classes):
        hue, value = int(index * 0.618034 * 256) % 256, (235, 170, 205)[index % 3]
        red, green, blue = Image.new("HSV", (1, 1), (hue, 190 - 60 * (index // 8 % 2), value)).convert("RGB").tobytes()
        colours.append((red, green, blue))
    return colours


def overlay(
    image: NDArray[np.uint8], labels: NDArray[np.integer], palette: Palette, *, opacity: float = 0.6
) -> NDArray[np.uint8]:
    """The image with each class tinted, a dark line between classes, and void as black hatching.

    Args:
        labels: H W of the image; any value that is no index into the palette counts as void.
        opacity: 0 shows the image alone, 1 the colours alone.

    Raises:
        ValueError: The labels have another size than the image.
    """
    if labels.shape != image.shape[:2]:
        raise ValueError(
            f"overlay: expected labels of the image's size {image.shape[:2]}, got {labels.shape}. "
            "Resize one of them (nearest neighbour for labels)."
        )
    known = (labels >= 0) & (labels < len(palette))
    colours = np.asarray([*palette, (90, 90, 90)], dtype=np.float32)
    tint = colours[np.where(known, labels, len(palette))]
    mixed = image * (1 - opacity) + tint * opacity
    y, x = np.ogrid[: labels.shape[0], : labels.shape[1]]
    hatched = (x + y) % 6 < 2
    mixed[~known & hatched] *= 0.1
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    mixed[edge & known] *= 0.55
    return mixed.round().astype(np.uint8)


def legend(classes: Sequence[str], palette: Palette, *, width: int) -> Image.Image:
    """A white strip `width` pixels wide with a swatch and a name for each class, and one for void."""
    font = ImageFont.load_default(_FONT_SIZE)
    entries = [*zip(classes, palette, strict=True), ("void", None)]
    swatch, line = 16, 22
    column = min(max(int(font.getlength(name)) for name, _ in entries) + swatch + 22, width)
    columns = max(width // column, 1)
    strip = Image.new("RGB", (width, line * -(-len(entries) // columns)), "white")
    draw = ImageDraw.Draw(strip)
    for index, (name, colour) in enumerate(entries):
        x, y = column * (index % columns) + 2, line * (index // columns) + 3
        draw.rectangle((x, y, x + swatch, y + swatch), fill=tuple(colour or (220, 220, 220)), outline=_TEXT)
        if colour is None:
            for offset in (4, 10, 16):
                draw.line((x, y + offset, x + offset, y), fill="black", width=2)
        draw.text((x + swatch + 6, y + 8), name, fill=_TEXT, font=font, anchor="lm")
    return strip


def contact_sheet(
    entries: Sequence[SheetEntry],
    classes: Sequence[str],
    palette: Palette,
    *,
    cell_width: int = 256,
    opacity: float = 0.75,
) -> Image.Image:
    """One column for each image: input, truth, prediction below each other, and the legend of all classes.

    Each image is scaled to `cell_width`; the row is as high as the highest. A missing label map leaves its
    cell empty. A sheet of up to 24 classes names them all, a longer list is cut to those that occur.
    """
    columns = [_column(entry, palette, width=cell_width, opacity=opacity) for entry in entries]
    rows = ("input", "truth", "prediction")
    heights = [max((column[row].height for column in columns), default=1) for row in range(len(rows))]
    margin, top = 84, 24
    width = margin + max(len(columns), 1) * (cell_width + _GAP)
    shown = _classes_to_name(entries, len(classes))
    strip = legend([classes[i] for i in shown], [palette[i] for i in shown], width=width - 2 * _GAP)
    height = top + sum(heights) + _GAP * (len(rows) + 1) + strip.height + _GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_SIZE)
    for index, (entry, column) in enumerate(zip(entries, columns, strict=True)):
        x = margin + index * (cell_width + _GAP)
        draw.text((x + cell_width // 2, top // 2), _shorten(entry.name, font, cell_width), _TEXT, font, anchor="mm")
        for row, cell in enumerate(column):
            sheet.paste(cell, (x, top + sum(heights[:row]) + _GAP * row))
    for row, name in enumerate(rows):
        y = top + sum(heights[:row]) + _GAP * row + heights[row] // 2
        draw.text((margin - 8, y), name, fill=_TEXT, font=font, anchor="rm")
    sheet.paste(strip, (_GAP, height - strip.height - _GAP))
    return sheet


def plot_curves(
    losses: Mapping[str, Curve], *, scores: Mapping[str, Curve], learning_rate: Curve | None = None
) -> Image.Image:
    """Losses left (raw faint, smoothed strong, logarithmic), scores right (fractions or percent).

    The learning rate, if given, is a dotted line in the right plot with its own axis. Empty mappings leave
    an empty plot; values that are not finite are gaps.
    """
    figure = Figure(figsize=(12, 4.5), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    loss_axes, score_axes = figure.subplots(1, 2)
    for index, (name, curve) in enumerate(losses.items()):
        colour = "black" if name == "loss" else f"C{index}"
        shown = slice(None, None, max(len(curve.values) // 4000, 1))  # more points than pixels only cost time
        iterations, values = curve.iterations[shown], curve.values[shown]
        loss_axes.plot(iterations, values, color=colour, alpha=0.15, linewidth=0.8)
        order = 3 if name == "loss" else 2
        smooth = _smooth(curve.values)[shown]
        loss_axes.plot(iterations, smooth, color=colour, linewidth=1.8, label=name, zorder=order)
    if any((curve.values > 0).any() for curve in losses.values()):
        loss_axes.set_yscale("log")
    _decorate(loss_axes, "loss")
    for index, (name, curve) in enumerate(scores.items()):
        score_axes.plot(curve.iterations, curve.values, f"C{index}o-", linewidth=1.8, markersize=4, label=name)
    percent = any((curve.values > 1).any() for curve in scores.values())
    score_axes.set_ylim(0, 100 if percent else 1)
    _decorate(score_axes, "validation")
    if learning_rate is not None:
        rate_axes = score_axes.twinx()
        rate_axes.plot(*learning_rate, color="grey", linestyle=":", linewidth=1.2)
        rate_axes.set_ylabel("learning rate (dotted)", color="grey")
        rate_axes.set_ylim(bottom=0)
        rate_axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def label_image(labels: NDArray[np.integer], palette: Palette) -> Image.Image:
    """An image whose pixel values are the class indices, with a palette; 16-bit grey beyond 256 classes.

    Raises:
        ValueError: A label outside 0...65535.
    """
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0 or high > 65535:
        raise ValueError(f"label_image: expected labels in 0...65535, got {low}...{high}. Map void to {IGNORE_INDEX}.")
    if high > 255 or len(palette) > 256:
        return Image.fromarray(labels.astype(np.uint16))
    picture = Image.fromarray(labels.astype(np.uint8)).convert("P")
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[: len(palette)] = np.asarray(palette, dtype=np.uint8)
    picture.putpalette(colours.tobytes())
    return picture


def save_png(picture: Image.Image, path: str | Path) -> None:
    """Writes the file in one step: readers see the old one or the complete new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    picture.save(unfinished, format="PNG")
    unfinished.replace(path)


def _column(entry: SheetEntry, palette: Palette, *, width: int, opacity: float) -> list[Image.Image]:
    """The input, the truth and the prediction at `width` pixels; an empty cell for what is missing."""
    height = max(round(entry.image.shape[0] * width / entry.image.shape[1]), 1)
    picture = Image.fromarray(entry.image).resize((width, height), Image.Resampling.BICUBIC)
    cells = [picture]
    for labels in (entry.truth, entry.prediction):
        if labels is None:
            cells.append(Image.new("RGB", (width, height), (240, 240, 240)))
            continue
        rows = (np.arange(height) * labels.shape[0]) // height
        columns = (np.arange(width) * labels.shape[1]) // width
        tinted = overlay(np.asarray(picture), labels[rows[:, None], columns], palette, opacity=opacity)
        cells.append(Image.fromarray(tinted))
    return cells


def _classes_to_name(entries: Sequence[SheetEntry], num_classes: int) -> list[int]:
    if num_classes <= 24:
        return list(range(num_classes))
    maps = [labels for entry in entries for labels in (entry.truth, entry.prediction) if labels is not None]
    present = np.unique(np.concatenate([np.unique(labels) for labels in maps])) if maps else np.array([], dtype=int)
    return [int(c) for c in present if 0 <= c < num_classes]


def _shorten(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    """The text, or its end behind an ellipsis where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    kept = text
    while kept and font.getlength("..." + kept) > width:
        kept = kept[1:]
    return "..." + kept


def _smooth(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Exponential moving average over a fiftieth of the curve, unbiased at the start, blind to gaps."""
    keep = 1 - 1 / max(len(values) / 50, 1.0)
    smoothed, total, weight = np.full(len(values), np.nan), 0.0, 0.0
    for index, value in enumerate(values):
        if np.isfinite(value):
            total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        if weight:
            smoothed[index] = total / weight
    return smoothed


def _decorate(axes: Axes, title: str) -> None:
    axes.set_xlabel("iteration")
    axes.set_title(title, pad=24)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        # Above the plot: inside, it would lie on a curve sooner or later.
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)
