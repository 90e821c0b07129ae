"""Busy machines are refused."""

import os

import pytest

from mmseg_m2f.benchmark import machine
from mmseg_m2f.benchmark.machine import check_load, describe_machine


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "num_cores", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (2.5, 0.0, 0.0))


def test_check_load__refuses_where_too_few_cores_are_free() -> None:
    check_load(1, even_if_loaded=False)  # three cores may be busy
    with pytest.raises(ValueError, match=r"at most 2 \(4 cores less 2 threads\), got 2\.50\. .* --even-if-loaded"):
        check_load(2, even_if_loaded=False)
    check_load(2, even_if_loaded=True)


def test_check_load__refuses_more_threads_than_cores() -> None:
    with pytest.raises(ValueError, match="threads: expected 1…4, the cores of this process, got 5"):
        check_load(5, even_if_loaded=True)


def test_describe_machine__names_processor_versions_and_load() -> None:
    found = describe_machine(2, "cpu")
    assert found["processor"]
    assert found["gpu"] is None
    assert found["threads"] == 2
    assert found["load_before"] == 2.5
    assert found["packages"]
