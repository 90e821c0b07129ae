"""The states of all random generators of a process, as tensors and plain values that a checkpoint may hold."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch

RandomStates: TypeAlias = dict[str, Any]  # `python`, `numpy`, `torch`, and `cuda` where there is a GPU


def capture_random_states() -> RandomStates:
    """The states of Python's, NumPy's and torch's global generators, and of the current GPU's."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    states: RandomStates = dict(
        python=dict(version=version, numbers=torch.tensor(numbers), gauss=gauss),
        numpy=dict(
            kind=str(kind),
            keys=torch.from_numpy(np.asarray(keys).astype(np.int64)),
            position=int(position),
            has_gauss=int(has_gauss),
            cached=float(cached),
        ),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Put the generators into the states that `capture_random_states` gave; a GPU that is absent is passed over."""
    python, numpy = states["python"], states["numpy"]
    random.setstate((python["version"], tuple(python["numbers"].tolist()), python["gauss"]))
    keys = numpy["keys"].cpu().numpy().astype(np.uint32)
    np.random.set_state(  # noqa: NPY002  (OpenMMLab's transforms draw from the global generator)
        (numpy["kind"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"])
    )
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


@contextmanager
def separate_randomness(seed: int) -> Iterator[None]:
    """Draw from generators of the CPU that start at `seed`; afterwards all are where they were."""
    python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.random.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(torch_state)
