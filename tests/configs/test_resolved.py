"""Published configs resolve to what they were: a change of an ingredient changes no recipe unseen."""

from pathlib import Path

import pytest

from tests.configs.resolved import FOLDER, changed_keys, fingerprint, leaves, stored


@pytest.mark.parametrize("path", leaves(), ids=lambda path: path.stem)
def test_leaf__resolves_as_stored(path: Path) -> None:
    before = stored()[path.relative_to(FOLDER).with_suffix("").as_posix()]
    changed = changed_keys(before, fingerprint(path))
    assert not changed, f"{path.stem}: {changed} changed. If that is meant: python -m tests.configs.resolved --update"


def test_stored__has_every_leaf_and_no_other() -> None:
    assert set(stored()) == {path.relative_to(FOLDER).with_suffix("").as_posix() for path in leaves()}


def test_changed_keys__names_values_that_differ_and_keys_of_one_side() -> None:
    assert changed_keys(dict(model="a", load_from="b", resume="c"), dict(model="d", resume="c")) == [
        "model",
        "load_from",
    ]


def test_fingerprint__sees_one_number(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 2), ("c", 1)):
        (tmp_path / f"{name}.py").write_text(f"helper = '{name}'\nmodel = dict(scales=[({value}, 2.0)])\n")
    a, b, c = (fingerprint(tmp_path / f"{name}.py") for name in "abc")
    assert changed_keys(a, b) == ["model"]
    assert a == c
