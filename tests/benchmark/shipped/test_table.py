from mmseg_m2f.benchmark.shipped.outcomes import Outcome
from mmseg_m2f.benchmark.shipped.processes import StageResult
from mmseg_m2f.benchmark.shipped.table import evidence, families, operators, reasons, summary, works

WORKS, SERVED = StageResult(), StageResult("", ("nms",))
OUTCOMES = {
    "mmseg/a/1.py": Outcome(dict(build=WORKS, step=WORKS, predict=WORKS)),
    "mmdet/b/1.py": Outcome(dict(build=WORKS, step=StageResult("no operator | x"), predict=WORKS)),
    "mmdet/b/2.py": Outcome(dict(build=StageResult("no package"))),
    "mmdet/c/3.py": Outcome(dict(build=StageResult("no package"))),
    "mmdet/d/4.py": Outcome(dict(build=WORKS, step=WORKS, predict=SERVED), like="mmdet/d/5.py"),
    "mmdet/e/5.py": Outcome(dict(build=WORKS)),
}


def test_summary__counts_stages_by_library_without_and_with_the_operators():
    assert summary(OUTCOMES).splitlines()[2:] == [
        "| mmseg | no | 1 | 1 | 1 | 1 | 1 | 0 |",
        "| mmseg | yes | 1 | 1 | 1 | 1 | 1 | 0 |",
        "| mmdet | no | 5 | 3 | 1 | 1 | 0 | 1 |",
        "| mmdet | yes | 5 | 3 | 1 | 2 | 1 | 1 |",
    ]
    assert "own model of 2 configs; for 1 with a smaller" in evidence(OUTCOMES)


def test_operators__counts_who_calls_them():
    assert operators(OUTCOMES).splitlines()[2:] == ["| `nms` | 0 | 1 |"]
    assert operators({"mmseg/a/1.py": OUTCOMES["mmseg/a/1.py"]}) == "None was called.\n"


def test_reasons__the_most_frequent_first():
    lines = reasons(OUTCOMES).splitlines()
    assert lines[2:] == [
        "| no package | build | 2 | `mmdet/b/2.py`, `mmdet/c/3.py` |",
        "| no operator \\| x | step | 1 | `mmdet/b/1.py` |",
    ]
    assert reasons({"mmseg/a/1.py": OUTCOMES["mmseg/a/1.py"]}) == "All configs that were tried pass all stages.\n"


def test_families__only_those_with_failures():
    assert families(OUTCOMES).splitlines()[2:] == ["| mmdet/b | 0 of 2 |", "| mmdet/c | 0 of 1 |"]
    assert not works(OUTCOMES["mmdet/b/2.py"])
