"""Comparing sizes of maps, in a way that an exported program does not remember."""

from collections.abc import Sequence


def is_known_equal(size: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two sizes are equal numbers; False in programs for any size, where they are not known.

    Resizing to the own size changes nothing, so that it can be left out only where it is known to.
    """
    if not all(isinstance(length, int) for length in (*size, *other)):
        return False
    return tuple(size) == tuple(other)
