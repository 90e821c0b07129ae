"""Loss and validation metric of several runs in one picture."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmseg_m2f.engine.hooks.report import MAIN_METRICS
from mmseg_m2f.errors import InvalidValueError, MissingFileError, UnknownNameError
from mmseg_m2f.json_files import parse_json
from mmseg_m2f.visualization import Curve, plot_curves

_Row = Mapping[str, float]


def compare_runs(folders: Sequence[str], *, metric: str | None = None) -> Image.Image:
    """The loss (left) and a metric of the validations (right) of each run, under the names of their folders.

    Reads what a run of ours or of any other library on mmengine leaves: `vis_data/scalars.json` of all its parts; later
    parts win where a resumed run repeats iterations.

    Args:
        folders: work folders.
        metric: its name, with or without prefix; PQ, AP or mIoU unless given, the first one that a run has.

    Raises:
        FileNotFoundError: a folder is missing or holds no log.
        KeyError: no run has the metric; lists those there are.
        ValueError: a log cannot be read.
    """
    runs = dict(zip(_names(folders), (read_scalars(folder) for folder in folders), strict=True))
    losses = {name: curve for name, rows in runs.items() if (curve := _curve(rows, "loss")) is not None}
    wanted = metric or _main_metric(runs)
    scores = {
        name: curve for name, rows in runs.items() if wanted is not None and (curve := _curve(rows, wanted)) is not None
    }
    if metric is not None and not scores:
        known = sorted({key for rows in runs.values() for row in rows for key in row} - {"step", "iter", "epoch"})
        raise UnknownNameError(f"--metric {metric}: no run has it; expected one of {', '.join(known)}.")
    return plot_curves(losses, scores=scores, score_title=f"validation: {wanted}" if wanted else "validation")


def read_scalars(folder: str) -> list[_Row]:
    """One row for each time the run logged, by `step` (iteration), of training and of validation.

    Raises:
        FileNotFoundError: no such folder, or no log in it.
        ValueError: a line is no JSON.
    """
    if not Path(folder).is_dir():
        raise MissingFileError(f"{folder}: expected the work folder of a run, got no folder. Correct the path.")
    files = sorted(Path(folder).rglob("vis_data/scalars.json"))
    if not files:
        raise MissingFileError(
            f"{folder}: expected vis_data/scalars.json of a run in it, got none. Give the --work-dir of a training."
        )
    rows: dict[tuple[bool, int], _Row] = {}
    for file in files:  # folders are named by time
        for row in _lines(file):
            rows["loss" in row, int(row["step"])] = row
    return [rows[key] for key in sorted(rows)]


def _lines(file: Path) -> Iterator[_Row]:
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        row = parse_json(
            line,
            source=f"{file}, line {number}",
            what="what a run logged",
            structure=dict,
            remedy="Delete the line, or leave the run out.",
        )
        if "step" in row:
            yield row


def _curve(rows: Sequence[_Row], name: str) -> Curve | None:
    points = [(row["step"], row[key]) for row in rows for key in row if name in (key, key.rpartition("/")[2])]
    if not points:
        return None
    steps, values = np.array(points, dtype=np.float64).T
    return Curve(steps.astype(np.int64), values)


def _main_metric(runs: Mapping[str, Sequence[_Row]]) -> str | None:
    names = {key.rpartition("/")[2] for rows in runs.values() for row in rows for key in row}
    return next((name for name in MAIN_METRICS if name in names), None)


def _names(folders: Sequence[str]) -> list[str]:
    """The last part of each path, with as many before it as tell them apart."""
    parts = [Path(folder).resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise InvalidValueError(f"RUN: expected different folders, got {', '.join(folders)}.")
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names
