"""Annotation files with something wrong: the reading of an oracle, or an error that names the file; see `fuzzing`."""

import gc

import pytest

from tests.datasets.fuzzing import KINDS, run

_CASES = 50  # of each kind: 200 files; `python -m tests.datasets.fuzzing` reads as many as you like


@pytest.fixture(autouse=True)
def without_collecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmengine's data sets collect garbage when they are built, which takes longer than all the rest."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


@pytest.mark.parametrize("kind", KINDS)
def test_fuzzed_files__are_read_as_the_oracle_does_or_refused(kind: str) -> None:
    counts, faults = run(kind, range(_CASES))
    assert not faults, "\n".join(faults)
    assert counts["read"] >= _CASES // 8
    assert counts["refused"] >= _CASES // 8
