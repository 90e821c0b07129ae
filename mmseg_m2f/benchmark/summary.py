"""Medians over rounds, the table that is printed, and the charts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from mmseg_m2f.benchmark.setting import Setting
from mmseg_m2f.benchmark.timing import PARTS, Seconds

_COLUMNS = (*PARTS, "step", "inference")
_AXES = ("queries", "objects", "size", "classes")


def summarise(rounds: Sequence[Mapping[str, Seconds]], names: Sequence[str]) -> dict[str, Any]:
    """Medians of seconds, and of the ratios of each round: the first implementation's time over another's.

    Gives `seconds` by implementation and part; `ratios` by implementation and part, each with `median`, `least` and
    `most`.
    """
    parts = list(rounds[0][names[0]])
    seconds = {name: {part: median(each[name][part] for each in rounds) for part in parts} for name in names}
    ratios = {}
    for name in names[1:]:
        by_part = {part: [each[names[0]][part] / each[name][part] for each in rounds] for part in parts}
        ratios[name] = {
            part: dict(median=median(values), least=min(values), most=max(values)) for part, values in by_part.items()
        }
    return dict(seconds=seconds, ratios=ratios)


def table(report: Mapping[str, Any]) -> str:
    """The report as text: seconds, ratios, memory, operators, and what they were measured on."""
    machine = report["machine"]
    loads = [machine["load_before"], *(load for result in report["results"] for load in result["loads"])]
    lines = [
        f"{machine['processor']}, {machine['gpu'] or 'no GPU used'}; {machine['threads']} of {machine['cores']} cores; "
        f"torch {machine['torch']}; {machine['date']}; load average {min(loads):.1f}…{max(loads):.1f}"
    ]
    if not report["complete"]:
        lines.append("NOT COMPLETE: the run was stopped.")
    lines += [f"{name}: {verdict}" for name, verdict in _verdicts(report).items()]
    names = report["implementations"]
    for result in report["results"]:
        lines += ["", Setting(**result["setting"]).title]
        lines += _aligned([row for name in names for row in _rows(name, names[0], result)], _header(result))
    return "\n".join([*lines, "", f"Ratios are {names[0]} over the other: medians over rounds (least…most)."])


def draw_settings(report: Mapping[str, Any]) -> Image.Image:
    """Bars: one group per setting, one bar per implementation; whiskers from the fastest to the slowest round.

    Quantities that were not measured have no panel.
    """
    panels = [panel for panel in _panels(report["results"]) if panel[1]]
    figure, canvas, grid = _figure(1, len(panels))
    names = report["implementations"]
    for axes, (title, values) in zip(grid[0], panels, strict=False):
        for index, name in enumerate(names):
            shown = [(x, value[name]) for x, value in enumerate(values) if name in value]
            places = [x + (index - (len(names) - 1) / 2) * 0.8 / len(names) for x, _ in shown]
            middle = np.array([median(value) for _, value in shown])
            below = middle - [min(value) for _, value in shown]
            above = np.array([max(value) for _, value in shown]) - middle
            errors = [below, above] if (below + above).any() else None
            axes.bar(places, middle, 0.8 / len(names), yerr=errors, capsize=3, label=_short(name))
        labels = [
            f"{s['size']}²\nbatch {s['batch']}\n{s['objects']} objects"
            for s in (result["setting"] for result in report["results"])
        ]
        axes.set_xticks(range(len(labels)), labels)
        _decorate(axes, title)
    return _picture(figure, canvas)


def draw_curves(report: Mapping[str, Any], base: Setting) -> Image.Image:
    """One column per count that was varied from `base`, one row per quantity, one curve per implementation."""
    chosen = {axis: _along(report["results"], base, axis) for axis in _AXES}
    columns = {axis: results for axis, results in chosen.items() if len(results) > 1}
    titles = [title for title, values in _panels(report["results"]) if values]
    figure, canvas, grid = _figure(len(titles), len(columns))
    for column, (axis, results) in enumerate(columns.items()):
        for row, title in enumerate(titles):
            values = dict(_panels(results))[title]
            axes = grid[row][column]
            for name in report["implementations"]:
                points = [
                    (result["setting"][axis], median(value[name]))
                    for result, value in zip(results, values, strict=False)
                    if name in value
                ]
                if points:
                    axes.plot(*zip(*points, strict=True), "o-", label=_short(name))
            axes.set_xlabel("image size in pixels" if axis == "size" else axis)
            _decorate(axes, title)
    return _picture(figure, canvas)


def _verdicts(report: Mapping[str, Any]) -> dict[str, str]:
    verdicts = {}
    for gate in report["gate"]:
        for found in gate["comparisons"]:
            verdicts[found["name"]] = (
                "equal up to rounding: " + ", ".join(f"{what} {value:.2g}" for what, value in found["figures"].items())
                if found["compared"]
                else "not compared: other weights, or objects in the place of label maps"
            )
    return verdicts


def _header(result: Mapping[str, Any]) -> list[str]:
    columns = [column for column in _COLUMNS if _timed(result, column)]
    header = ["", *(f"{column} s" for column in columns)]
    if result["memory"]:
        header += ["training MB", "inference MB"]
    if result["ops"]:
        header += ["ops", "host reads"]
    if _on_card(result):
        header += ["kernels", "launches", "busy", "busy in inference"]
    return header


def _rows(name: str, first: str, result: Mapping[str, Any]) -> list[list[str]]:
    """Figures of an implementation, and below them those of the first over them; empty where none is known yet."""
    figures, ratios = [_short(name)], ["  ratio"]
    summary = result["summary"]
    for column in (column for column in _COLUMNS if _timed(result, column)):
        figures.append(f"{summary['seconds'][name][column]:.3f}")
        ratio = summary["ratios"].get(name, {}).get(column)
        ratios.append(f"{ratio['median']:.2f} ({ratio['least']:.2f}…{ratio['most']:.2f})" if ratio else "")
    memory = {model: {part: size / 1e6 for part, size in peaks.items()} for model, peaks in result["memory"].items()}
    ops = {model: counts["training"] for model, counts in result["ops"].items()}
    for values, parts in ((memory, ("training", "inference")), (ops, ("ops", "host_reads"))):
        for part in parts if values else ():
            value = values.get(name, {}).get(part)
            figures.append("" if value is None else f"{value:.0f}")
            ratios.append(f"{values[first][part] / value:.2f}" if value else "")
    figures += _shares(name, result)
    return [figures] if name == first else [figures, ratios + [""] * (len(figures) - len(ratios))]


def _on_card(result: Mapping[str, Any]) -> bool:
    return result["setting"]["device"] == "cuda" and bool(result.get("profile"))


def _shares(name: str, result: Mapping[str, Any]) -> list[str]:
    """Kernels and launches of a step, and in which share of a step and of inference the card is busy."""
    if not _on_card(result):
        return []
    found = result["profile"].get(name)
    if found is None:
        return [""] * 4
    seconds = result["summary"].get("seconds", {}).get(name, {})
    shares = [
        f"{found[part]['device_seconds'] / seconds[column]:.0%}" if column in seconds else ""
        for part, column in (("training", "step"), ("inference", "inference"))
    ]
    return [f"{found['training']['kernels']:.0f}", f"{found['training']['launches']:.0f}", *shares]


def _timed(result: Mapping[str, Any], part: str) -> bool:
    return any(part in seconds for seconds in result["summary"].get("seconds", {}).values())


def _aligned(rows: Sequence[Sequence[str]], header: Sequence[str]) -> list[str]:
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (header, *rows)
    ]


def _panels(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[dict[str, list[float]]]]]:
    """Title, and for each result the values of each implementation; none where nothing was measured."""
    panels: list[tuple[str, list[dict[str, list[float]]]]] = []
    for part, title in (("step", "training step, s"), ("inference", "inference, s")):
        values = [
            {name: [each[name][part] for each in r["rounds"]] for name in (r["rounds"][0] if r["rounds"] else {})}
            if _timed(r, part)
            else {}
            for r in results
        ]
        panels.append((title, values if any(values) else []))
    for part in ("training", "inference"):
        values = [{name: [peaks[part] / 1e6] for name, peaks in r["memory"].items()} for r in results]
        panels.append((f"peak memory of {part}, MB", values if any(values) else []))
    values = [{name: [float(counts["training"]["ops"])] for name, counts in r["ops"].items()} for r in results]
    panels.append(("operators per step", values if any(values) else []))
    return panels


def _along(results: Sequence[Mapping[str, Any]], base: Setting, axis: str) -> list[Mapping[str, Any]]:
    """Results that differ from the base in nothing but `axis`, in its order."""
    common = vars(base)
    found = [r for r in results if {**r["setting"], axis: common[axis]} == common]
    return sorted(found, key=lambda r: r["setting"][axis])


def _figure(rows: int, columns: int) -> tuple[Figure, FigureCanvasAgg, Any]:
    rows, columns = max(rows, 1), max(columns, 1)
    figure = Figure(figsize=(3.6 * columns, 3.2 * rows), dpi=110, layout="constrained")
    return figure, FigureCanvasAgg(figure), figure.subplots(rows, columns, squeeze=False)


def _decorate(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _picture(figure: Figure, canvas: FigureCanvasAgg) -> Image.Image:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _short(name: str) -> str:
    return Path(name).stem
