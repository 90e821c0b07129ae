import json
from pathlib import Path

import pytest

from mmseg_m2f.analysis.run_curves import compare_runs, read_scalars


def write_run(folder: Path, rows: list[dict], *, part: str = "20260101_000000") -> str:
    path = folder / part / "vis_data/scalars.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


ROWS = [dict(loss=2.0, step=50), dict(loss=1.0, step=100), {"mIoU": 0.4, "IoU.sky": 0.3, "step": 100}]


def test_read_scalars__later_parts_win_where_a_resumed_run_repeats_iterations(tmp_path: Path) -> None:
    write_run(tmp_path, ROWS)
    write_run(tmp_path, [dict(loss=0.5, step=100), dict(loss=0.25, step=150)], part="20260102_000000")
    rows = read_scalars(str(tmp_path))
    assert [(row["step"], row["loss"]) for row in rows if "loss" in row] == [(50, 2.0), (100, 0.5), (150, 0.25)]
    assert [row["mIoU"] for row in rows if "mIoU" in row] == [0.4]


def test_compare_runs__draws_each_run_in_its_colour(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, ROWS) for name in ("one", "two")]
    picture = compare_runs(runs)
    colours = {colour for _, colour in picture.getcolors(2**20)}
    assert {(31, 119, 180), (255, 127, 14)} <= colours  # matplotlib's first two
    assert compare_runs(runs, metric="IoU.sky").size == picture.size


def test_compare_runs__says_what_is_wrong(tmp_path: Path) -> None:
    run = write_run(tmp_path / "one", ROWS)
    with pytest.raises(FileNotFoundError, match="expected the work folder"):
        compare_runs([str(tmp_path / "none")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"scalars\.json"):
        compare_runs([str(tmp_path / "empty")])
    with pytest.raises(KeyError, match=r"no run has it; expected one of IoU\.sky, loss, mIoU"):
        compare_runs([run], metric="PQ")
    with pytest.raises(ValueError, match="expected different folders"):
        compare_runs([run, run + "/"])
    (tmp_path / "one/20260101_000000/vis_data/scalars.json").write_text("{broken")
    with pytest.raises(ValueError, match="line 1: expected what a run logged"):
        compare_runs([run])
