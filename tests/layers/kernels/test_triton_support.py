import importlib.util
import sys

import pytest

from mmseg_m2f.layers.kernels import triton_support


def test_is_available__is_false_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)  # as if it were not installed
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    spec = importlib.util.spec_from_file_location("without_triton", triton_support.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not module.is_available()


@pytest.mark.parametrize(("version", "expected"), [("3.2.0", False), ("3.3.1", True), ("10.0", True)])
def test_is_available__needs_a_triton_of_3_3(monkeypatch: pytest.MonkeyPatch, version: str, expected: bool) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(triton_support, "triton", type("Triton", (), {"__version__": version}))
    assert triton_support.is_available.__wrapped__() is expected


@pytest.mark.parametrize(("number", "expected"), [(1, 1), (2, 2), (3, 4), (100, 128), (128, 128)])
def test_next_power_of_2__is_at_least_the_number(number: int, expected: int) -> None:
    assert triton_support.next_power_of_2(number) == expected
