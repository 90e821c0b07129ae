"""What the Triton kernels share: where they run, and the sizes of their blocks."""

from functools import cache

import torch

try:
    import triton
except ImportError:
    triton = None

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
#: Cells of an image are counted in 32 bits.
INT32 = 2**31


@cache
def is_available() -> bool:
    """Whether kernels can run here: there is a GPU, and a Triton that takes tuples as arguments (3.3)."""
    return triton is not None and torch.cuda.is_available() and major_minor(triton.__version__) >= (3, 3)


def next_power_of_2(number: int) -> int:
    """The smallest power of 2 that is at least `number`, and at least 1."""
    return 1 << max(number - 1, 0).bit_length()


def major_minor(version: str) -> tuple[int, int]:
    """The first two numbers of a version."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
