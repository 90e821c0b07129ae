from mmseg_m2f.benchmark.shipped.table import families, reasons, summary, works

OUTCOMES = {
    "mmseg/a/1.py": dict(build="", step="", predict=""),
    "mmdet/b/1.py": dict(build="", step="no operator | x", predict=""),
    "mmdet/b/2.py": dict(build="no package"),
    "mmdet/c/3.py": dict(build="no package"),
    "mmdet/d/4.py": dict(build="", step="", predict=""),
}


def test_summary__counts_stages_by_library():
    lines = summary(OUTCOMES).splitlines()
    assert lines[2:] == ["| mmseg | 1 | 1 | 1 | 1 | 1 |", "| mmdet | 4 | 2 | 1 | 2 | 1 |"]


def test_reasons__the_most_frequent_first():
    lines = reasons(OUTCOMES).splitlines()
    assert lines[2:] == [
        "| no package | build | 2 | `mmdet/b/2.py`, `mmdet/c/3.py` |",
        "| no operator \\| x | step | 1 | `mmdet/b/1.py` |",
    ]
    assert reasons({"mmseg/a/1.py": OUTCOMES["mmseg/a/1.py"]}) == "All configs pass all stages.\n"


def test_families__only_those_with_failures():
    assert families(OUTCOMES).splitlines()[2:] == ["| mmdet/b | 0 of 2 |", "| mmdet/c | 0 of 1 |"]
    assert not works(OUTCOMES["mmdet/b/2.py"])
