"""Learning curves, and accuracy over cost."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from mmseg_m2f.benchmark.heads.score_table import Costs, Row, score_names

_COSTS: dict[str, Callable[[Costs], float]] = {
    "parameters, M": lambda costs: costs.parameters / 1e6,
    "multiply–adds, G": lambda costs: costs.multiply_adds / 1e9,
    "training step, s": lambda costs: costs.step_s,
    "training memory, MB": lambda costs: math.nan if costs.step_bytes is None else costs.step_bytes / 1e6,
    "latency, ms": lambda costs: costs.latency_s * 1e3,
}
_MARKERS = "osD^v"
_LINES = ("-", "--", ":", "-.")


def draw_curves(rows: Sequence[Row]) -> Image.Image:
    """A panel for each score: means over seeds as lines, least to most as bands."""
    names = [name for name in score_names(rows) if any(name in row.curves for row in rows)]
    figure, canvas, panels = _figure(max(len(names), 1), width=6.5)
    for axes, name in zip(panels, names, strict=False):
        for index, row in enumerate(rows):
            if name in row.curves:
                iterations, spreads = row.curves[name]
                colour, marker, line = _look(index)
                means = [s.mean for s in spreads]
                axes.plot(iterations, means, marker + line, color=colour, markersize=4, label=row.name)
                low, high = [s.least for s in spreads], [s.most for s in spreads]
                axes.fill_between(iterations, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set_ylim(bottom=0)
        _decorate(axes, x="iteration", y=name)
    return _picture(figure, canvas)


def draw_trade_offs(rows: Sequence[Row]) -> Image.Image:
    """The first score over each cost, one point per head; whiskers from the least to the most of the seeds."""
    name = next(iter(score_names(rows)), "")
    scored = [(index, row) for index, row in enumerate(rows) if name in row.scores]
    costs = {title: read for title, read in _COSTS.items() if all(math.isfinite(read(row.costs)) for row in rows)}
    figure, canvas, panels = _figure(len(costs), width=3.4)
    for axes, (title, read) in zip(panels, costs.items(), strict=True):
        for index, row in scored:
            spread = row.scores[name]
            whisker = np.array([[spread.mean - spread.least], [spread.most - spread.mean]])
            at = [read(row.costs)]
            colour, marker, _ = _look(index)
            axes.errorbar(at, [spread.mean], whisker, fmt=marker, color=colour, capsize=3, label=row.name)
        axes.set_xlim(0, 1.15 * max(read(row.costs) for row in rows))
        axes.margins(y=0.15)
        _decorate(axes, x=title, y=name)
    return _picture(figure, canvas)


def _look(index: int) -> tuple[str, str, str]:
    """Colour, marker and line of a head: ten colours, then the same ten with the next marker and line."""
    turn = index // 10
    return f"C{index % 10}", _MARKERS[turn % len(_MARKERS)], _LINES[turn % len(_LINES)]


def _figure(panels: int, *, width: float) -> tuple[Figure, FigureCanvasAgg, Sequence[Axes]]:
    figure = Figure(figsize=(width * panels, 3.8), dpi=110, layout="constrained")
    return figure, FigureCanvasAgg(figure), list(figure.subplots(1, panels, squeeze=False)[0])


def _decorate(axes: Axes, *, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _picture(figure: Figure, canvas: FigureCanvasAgg) -> Image.Image:
    found = dict(zip(*reversed(figure.axes[0].get_legend_handles_labels()), strict=True))
    if found:
        columns = max(int(figure.get_figwidth() * 11 / (max(map(len, found)) + 6)), 1)
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=columns, frameon=False)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
