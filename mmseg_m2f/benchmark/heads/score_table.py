"""What finished runs say together: one row for each head, and the table."""

from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any, NamedTuple

from mmseg_m2f.benchmark.heads.running import Run
from mmseg_m2f.json_files import read_json
from mmseg_m2f.visualization.markdown import escape_markdown


class Spread(NamedTuple):
    """A score over seeds, in [0, 1]."""

    mean: float
    least: float
    most: float
    seeds: int


class Costs(NamedTuple):
    """Medians over seeds; `step_bytes` is None where the system does not tell."""

    parameters: int
    multiply_adds: int
    step_s: float
    step_bytes: float | None
    latency_s: float


class Curve(NamedTuple):
    """A score over training iterations, over the seeds that were validated there."""

    iterations: list[int]
    spreads: list[Spread]


class Row(NamedTuple):
    """All finished runs of a head."""

    name: str
    seeds: list[int]
    scores: dict[str, Spread]
    costs: Costs
    curves: dict[str, Curve]
    setting: dict[str, Any]
    pictures: list[dict[str, Any]]


_RESULT = {
    "batch": object,
    "processes": int,
    "data": {"type": str, "images": int, "classes": int},
    "scores": {str: float},
    "history": [{"iteration": int, "scores": {str: float}}],
    "costs": {
        **dict.fromkeys(("parameters", "multiply_adds", "step_s", "latency_s"), float),
        "step_bytes": (float, None),
        "image_size": [int],
        "device": str,
    },
    "pictures": [{"input": str, "kinds": {str: {str: str}}}],
}
_COSTS = ("parameters, M", "multiply–adds, G", "training step, s", "training memory, MB", "latency, ms")


def summarise(runs: Sequence[Run]) -> list[Row]:
    """One row for each head with a finished run, in the order of the runs.

    Raises:
        ValueError: a result file that is not one of this tool.
    """
    found: dict[str, list[tuple[Run, dict[str, Any]]]] = {}
    for run in runs:
        if run.result.exists():
            found.setdefault(run.name, []).append((run, _read(run)))
    return [_row(name, results) for name, results in found.items()]


def score_names(rows: Sequence[Row]) -> list[str]:
    """The scores that some head has, in order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row.scores))


def notes(rows: Sequence[Row]) -> list[str]:
    """What speaks against comparing the rows."""
    said = []
    kinds = {"data": "tested on different data", "batch": "trained with different batches"}
    kinds["image_size"] = "measured on images of different sizes (height, width)"
    kinds["device"] = "measured on different devices"
    for key, text in kinds.items():
        by_value: dict[str, list[str]] = {}
        for row in rows:
            by_value.setdefault(in_words(row.setting[key]), []).append(row.name)
        if len(by_value) > 1:
            said.append(f"Not comparable: {text}: " + "; ".join(f"{k} ({', '.join(v)})" for k, v in by_value.items()))
    return said


def in_words(value: object) -> str:
    """A value of a row's setting as one reads it."""
    if isinstance(value, Mapping):
        return f"{value['type']}, {value['images']} images, {value['classes']} classes"
    return " × ".join(map(str, value)) if isinstance(value, list) else str(value)


def table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings, and the cells of each row; empty where a head has no such score."""
    names = score_names(rows)
    cells = []
    for row in rows:
        costs = row.costs
        memory = "" if costs.step_bytes is None else f"{costs.step_bytes / 1e6:.0f}"
        cells.append(
            [
                row.name,
                *(score_text(row.scores.get(name)) for name in names),
                f"{costs.parameters / 1e6:.2f}",
                f"{costs.multiply_adds / 1e9:.3g}",
                f"{costs.step_s:.3g}",
                memory,
                f"{costs.latency_s * 1e3:.3g}",
            ]
        )
    return ["head", *names, *_COSTS], cells


def score_text(spread: Spread | None) -> str:
    """The mean, and from where to where the seeds lie if there are several."""
    if spread is None:
        return ""
    limits = f" ({spread.least:.3f}…{spread.most:.3f})" if spread.seeds > 1 else ""
    return f"{spread.mean:.3f}{limits}"


def markdown(rows: Sequence[Row], remarks: Sequence[str]) -> str:
    """The table and the remarks below it."""
    header, cells = table(rows)
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [
        f"| {' | '.join(line)} |"
        for line in (map(escape_markdown, header), rule, *(map(escape_markdown, row) for row in cells))
    ]
    return "\n".join([*lines, "", *(f"- {escape_markdown(remark)}" for remark in remarks), ""])


def as_json(row: Row) -> dict[str, Any]:
    """A row as plain values."""
    return dict(
        name=row.name,
        seeds=row.seeds,
        scores={name: spread._asdict() for name, spread in row.scores.items()},
        costs=row.costs._asdict(),
        curves={
            name: dict(iterations=curve.iterations, spreads=[spread._asdict() for spread in curve.spreads])
            for name, curve in row.curves.items()
        },
        setting=row.setting,
    )


def _read(run: Run) -> dict[str, Any]:
    what = "the result of a run with 'scores', 'costs' and 'history'"
    remedy = "Delete the file; the run is then tested again."
    return read_json(run.result, what=what, structure=_RESULT, remedy=remedy)


def _row(name: str, results: Sequence[tuple[Run, Mapping[str, Any]]]) -> Row:
    contents = [content for _, content in results]
    scores: dict[str, list[float]] = {}
    curves: dict[str, dict[int, list[float]]] = {}
    for content in contents:
        for score, value in content["scores"].items():
            scores.setdefault(score, []).append(value)
        for validation in content["history"]:
            for score, value in validation["scores"].items():
                curves.setdefault(score, {}).setdefault(int(validation["iteration"]), []).append(value)
    costs = [content["costs"] for content in contents]
    peaks = [cost["step_bytes"] for cost in costs if cost["step_bytes"] is not None]
    return Row(
        name,
        [run.seed for run, _ in results],
        {score: _spread(values) for score, values in scores.items()},
        Costs(
            costs[0]["parameters"],
            costs[0]["multiply_adds"],
            median(cost["step_s"] for cost in costs),
            median(peaks) if peaks else None,
            median(cost["latency_s"] for cost in costs),
        ),
        {
            score: Curve(sorted(values), [_spread(values[at]) for at in sorted(values)])
            for score, values in curves.items()
        },
        dict(
            data=contents[0]["data"],
            batch=_batch_in_words(contents[0]["batch"], contents[0]["processes"]),
            image_size=costs[0]["image_size"],
            device=costs[0]["device"],
        ),
        _with_folders(results[0][1]["pictures"], results[0][0]),
    )


def _batch_in_words(batch: int, processes: int) -> str:
    """The images of a training step; memory is measured in one process, with the images of that process alone."""
    return str(batch) if processes == 1 else f"{batch} in each of {processes} processes, memory of one,"


def _with_folders(pictures: Sequence[Mapping[str, Any]], run: Run) -> list[dict[str, Any]]:
    """The pictures of a run with whole paths."""
    return [
        dict(
            picture,
            input=str(run.folder / picture["input"]),
            kinds={
                kind: {which: str(run.folder / file) for which, file in files.items()}
                for kind, files in picture["kinds"].items()
            },
        )
        for picture in pictures
    ]


def _spread(values: Sequence[float]) -> Spread:
    return Spread(mean(values), min(values), max(values), len(values))
