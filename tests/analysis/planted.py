"""Objects in a row of pixels, with one fault of each kind in what is predicted of them."""

import numpy as np

from tests.evaluation.object_samples import bar

LENGTH = 120
#: Class and pixels; the second number is exclusive.
TRUTH = dict(A=(0, 0, 10), B=(0, 12, 24), C=(0, 26, 31), D=(0, 33, 38), E=(0, 40, 50), F=(0, 52, 64))
TRUTH |= dict(H=(0, 72, 80), I=(0, 82, 92), J=(1, 100, 110))
#: What is predicted: A is confused, B split, C and D merged, E cut short, F found twice, H missed, V made up.
FOUND = dict(A=(1, 0, 10), B1=(0, 12, 16), B2=(0, 16, 20), B3=(0, 20, 24), CD=(0, 26, 38), E=(0, 40, 44))
FOUND |= dict(V=(0, 66, 70), I=(0, 82, 92), J=(1, 100, 110))


def span(entry: tuple[int, int, int]) -> np.ndarray:
    """The mask of an object, 1 × LENGTH."""
    return bar(*entry[1:], length=LENGTH)


def mended(kind: str, found: dict[str, tuple[int, int, int]]) -> dict[str, tuple[int, int, int]]:
    """What would be predicted without the faults of one kind."""
    gone = dict(
        split=("B1", "B2", "B3"), merge=("CD",), duplicate=("F2",), void=("V",), missed=(), boundary=(), **{"class": ()}
    )[kind]
    right = dict(
        split=("B",), merge=("C", "D"), duplicate=(), void=(), missed=("H",), boundary=("E", "F"), **{"class": ("A",)}
    )[kind]
    return {name: entry for name, entry in found.items() if name not in gone} | {name: TRUTH[name] for name in right}
