"""Training as curves over iterations."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

_LEGEND_COLUMNS = 4


class Curve(NamedTuple):
    """Values over iterations, both of length N, iterations ascending."""

    iterations: NDArray[np.integer]
    values: NDArray[np.floating]


def plot_curves(
    losses: Mapping[str, Curve],
    *,
    scores: Mapping[str, Curve],
    learning_rate: Curve | None = None,
    score_title: str = "validation",
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
        marker = "o" if len(smooth) == 1 else None  # a line of one point is not seen
        loss_axes.plot(iterations, smooth, color=colour, linewidth=1.8, label=name, zorder=order, marker=marker)
    if any((curve.values > 0).any() for curve in losses.values()):
        loss_axes.set_yscale("log")
    _decorate(loss_axes, "loss")
    for index, (name, curve) in enumerate(scores.items()):
        score_axes.plot(curve.iterations, curve.values, f"C{index}o-", linewidth=1.8, markersize=4, label=name)
    percent = any((curve.values > 1).any() for curve in scores.values())
    score_axes.set_ylim(0, 100 if percent else 1)
    _decorate(score_axes, score_title)
    if learning_rate is not None:
        rate_axes = score_axes.twinx()
        rate_axes.plot(*learning_rate, color="grey", linestyle=":", linewidth=1.2)
        rate_axes.set_ylabel("learning rate (dotted)", color="grey")
        rate_axes.set_ylim(bottom=0)
        rate_axes.spines["top"].set_visible(False)
        rate_axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


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
    names = axes.get_legend_handles_labels()[0]
    lines = max(-(-len(names) // _LEGEND_COLUMNS), 1)
    axes.set_title(title, pad=6 + 18 * lines)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if names:
        # Above the plot: inside, it would lie on a curve sooner or later.
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=_LEGEND_COLUMNS, frameon=False)
