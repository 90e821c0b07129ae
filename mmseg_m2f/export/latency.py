"""How long a model and its exported file take for the same images, side by side."""

import statistics
import time
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mmseg_m2f.runtime import ExportedModel

_ROUNDS = 3


@torch.no_grad()
def latencies(
    wrapper: nn.Module, file: ExportedModel, inputs: Mapping[str, Tensor], *, compiled: bool = False
) -> dict[str, float]:
    """Median milliseconds of `eager`, `exported` and, if asked, `compiled`, measured in turn with torch's threads.

    A model that does not compile is left out, with a warning: torch needs a C++ compiler.

    Args:
        wrapper: The model as a function of tensors.
        compiled: Also measure the model through `torch.compile`, which takes about a minute to compile.
    """
    arrays = {name: value.numpy() for name, value in inputs.items()}
    runs: dict[str, Callable[[], object]] = dict(
        eager=lambda: wrapper(*inputs.values()), exported=lambda: file(**arrays)
    )
    if compiled:
        faster = torch.compile(wrapper)
        try:
            faster(*inputs.values())
        except Exception as error:  # noqa: BLE001  (of the compiler, whatever it is; the file is not at fault)
            reason = str(error).partition("\n")[0]
            warnings.warn(
                f"The compiled model was not measured: {type(error).__name__}: {reason} --no-compiled leaves it out.",
                stacklevel=2,
            )
        else:
            runs["compiled"] = lambda: faster(*inputs.values())
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():  # the first call allocates
        run()
    for _ in range(_ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(each) for name, each in times.items()}
