"""Reading pickles of arrays without running anything that a pickle asks for.

A pickle names functions to call. Here the few names that arrays need lead to functions of this module, which build
arrays of plain numbers, and any other name is refused.
"""

import collections
import pickle
from pathlib import Path

import numpy as np

from mmseg_m2f.errors import InvalidValueError

# What a pickle cut short or made up can raise, in any of its operations.
_MALFORMED = (
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ImportError,
    OverflowError,
    MemoryError,
    AssertionError,
    RecursionError,  # lists in lists in lists
)


class RefusedPickleError(pickle.UnpicklingError):
    """A pickle names something that is neither an array nor a container."""


def load_arrays(path: Path) -> object:
    """The content of a pickle: containers, plain values, and arrays as `numpy.ndarray` where containers hold them.

    Raises:
        ValueError: the file is no pickle or cut short, or names something that is not listed here.
    """
    try:
        with path.open("rb") as file:
            return _plain(_ArrayUnpickler(file, encoding="latin1").load(), {})
    except RefusedPickleError as error:
        raise InvalidValueError(
            f"Pickle {path} names {error}; expected arrays, containers and plain values only. Loading it could run "
            "code from the file and is refused. If you trust its origin, re-save it with arrays only."
        ) from error
    except (pickle.UnpicklingError, *_MALFORMED) as error:
        raise InvalidValueError(
            f"Pickle {path} ({path.stat().st_size:,} bytes) cannot be read: {error}. Expected a complete pickle of "
            "arrays; download or copy it again."
        ) from error


class _Number:
    """Stands for `numpy.dtype`: types of plain numbers, in either byte order."""

    def __init__(self, code: str, *_: object) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in "biufc":
            raise RefusedPickleError(f"an array of {self.dtype}")

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for `numpy.ndarray` until its numbers are known."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, number, is_fortran, numbers = state
        self.value = _from_bytes(numbers, number, shape, "F" if is_fortran else "C").value


def _from_bytes(numbers: bytes | bytearray | str, number: _Number, shape: tuple[int, ...], order: str) -> _Array:
    raw = numbers.encode("latin1") if isinstance(numbers, str) else bytes(numbers)  # Python 2 pickled text
    array = _Array()
    array.value = np.ndarray(shape, number.dtype, bytearray(raw), order="F" if order == "F" else "C")
    return array


def _scalar(number: _Number, numbers: bytes | bytearray | str) -> _Array:
    return _from_bytes(numbers, number, (), "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if encoding != "latin1":
        raise RefusedPickleError(f"_codecs.encode to {encoding}")
    return text.encode("latin1")


def _no_bytes(*content: object) -> bytes:
    """How Python 3 writes empty bytes for Python 2."""
    if content:
        raise RefusedPickleError("bytes() with arguments")
    return b""


_KNOWN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Number,
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")  # as numpy 1 and numpy 2 write it
        for module, name, function in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_bytes),
        )
    },
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _KNOWN:
            raise RefusedPickleError(f"{module}.{name}")
        return _KNOWN[module, name]


def _plain(value: object, done: dict[int, object]) -> object:
    """The same containers with real arrays.

    Args:
        done: What became of each container by its `id`. A few bytes can name one container a billion times.
    """
    if isinstance(value, _Array):
        return value.value
    if not isinstance(value, dict | list | tuple):
        return value
    if id(value) not in done:
        if isinstance(value, dict):
            done[id(value)] = {key: _plain(item, done) for key, item in value.items()}
        else:
            done[id(value)] = [_plain(item, done) for item in value]
    return done[id(value)]
