"""Pickles of arrays, as numpy 1 and 2 and as Python 2 and 3 write them; nothing in a pickle runs."""

import collections
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from mmseg_m2f.checkpoints.array_pickle import load_arrays

ARRAYS = {
    "float32": np.arange(6, dtype="f4").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big-endian": np.arange(3, dtype=">i8"),
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 4), "f2"),
    "nothing-d": np.array(7),
}


def write(path: Path, value: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_load_arrays__all_protocols(tmp_path: Path, protocol: int):
    content = collections.OrderedDict(model=ARRAYS, scalar=np.float32(3), nested=[(1, "a", b"b", None)])
    content._metadata = {"version": 2}
    loaded = load_arrays(write(tmp_path / "a.pkl", content, protocol))
    assert loaded["scalar"] == 3
    assert loaded["nested"] == [[1, "a", b"b", None]]
    for name, array in ARRAYS.items():
        assert loaded["model"][name].dtype == array.dtype
        np.testing.assert_array_equal(loaded["model"][name], array)


@pytest.mark.parametrize("protocol", [2, 4])
def test_load_arrays__as_numpy_1_wrote_them(tmp_path: Path, protocol: int):
    content = pickle.dumps(ARRAYS["float32"], protocol=protocol)
    if protocol == 2:
        content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    else:
        content = pickle.dumps(ARRAYS["float32"], protocol=3).replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy.core." in content
    (tmp_path / "a.pkl").write_bytes(content)
    np.testing.assert_array_equal(load_arrays(tmp_path / "a.pkl"), ARRAYS["float32"])


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class Evaluate(Touch):
    def __reduce__(self):
        return eval, (f"__import__('pathlib').Path({str(self.path)!r}).touch()",)


@pytest.mark.parametrize(
    ("attack", "named"), [(Touch, r"(posix|nt)\.system"), (Evaluate, r"(builtins|__builtin__)\.eval")]
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_load_arrays__runs_nothing(tmp_path: Path, attack: type[Touch], named: str, protocol: int):
    victim = tmp_path / "created"
    path = write(tmp_path / "a.pkl", {"model": {"a": ARRAYS["float32"], "b": attack(victim)}}, protocol)
    with pytest.raises(ValueError, match=rf"a\.pkl names {named}; expected arrays"):
        load_arrays(path)
    assert not victim.exists()
    pickle.loads(path.read_bytes())  # the attack would have worked
    assert victim.exists()


def test_load_arrays__objects_in_an_array(tmp_path: Path):
    with pytest.raises(ValueError, match="names an array of object; expected arrays"):
        load_arrays(write(tmp_path / "a.pkl", np.array([None, {}], dtype=object)))


@pytest.mark.parametrize("length", [0, 1, 20, 100, -1])
def test_load_arrays__truncated(tmp_path: Path, length: int):
    path = write(tmp_path / "a.pkl", ARRAYS)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"a\.pkl \(.* bytes\) cannot be read: .* download or copy it again"):
        load_arrays(path)


def test_load_arrays__fewer_numbers_than_the_shape_says(tmp_path: Path):
    content = pickle.dumps(np.arange(4, dtype="u1"), protocol=2)
    forged = content.replace(b"K\x04\x85", b"K\x09\x85")
    assert forged != content
    (tmp_path / "a.pkl").write_bytes(forged)
    with pytest.raises(ValueError, match="cannot be read"):
        load_arrays(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    "content",
    [b"]" * 100_000 + b"a" * 99_999, b"}K\x01" * 100_000 + b"N" + b"s" * 100_000, b"]q\x00h\x00a"],
    ids=["lists", "dicts", "itself"],
)
def test_load_arrays__deeply_nested(tmp_path: Path, content: bytes):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + content + b".")
    with pytest.raises(ValueError, match=r"a\.pkl .*cannot be read.*recursion"):
        load_arrays(tmp_path / "a.pkl")


def test_load_arrays__one_list_named_often(tmp_path: Path):
    doubled = b"]q\x00" + b"".join(b"]q%c(h%ch%ce" % (n, n - 1, n - 1) for n in range(1, 60))
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + doubled + b".")
    found, levels = load_arrays(tmp_path / "a.pkl"), 0
    while found:
        found, levels = found[0], levels + 1
    assert levels == 59
