"""One voice for several processes: the first rank looks at files and warns, all ranks stop together."""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator

from mmengine.dist import broadcast_object_list, is_main_process

from mmseg_m2f.errors import UserError

# Where launchers write the rank of a process before a process group exists: torchrun, Slurm, Open MPI.
_RANK_VARIABLES = {"pytorch": "RANK", "slurm": "SLURM_PROCID", "mpi": "OMPI_COMM_WORLD_RANK"}


@contextlib.contextmanager
def warnings_of_first_rank(launcher: str) -> Iterator[None]:
    """Within it, ranks other than the first, and their data workers, do not repeat the warnings of the first."""
    rank = os.environ.get(_RANK_VARIABLES.get(launcher, ""), "0")
    with warnings.catch_warnings():
        if rank != "0":
            warnings.simplefilter("ignore")
        yield


def on_first_rank(check: Callable[[], None]) -> None:
    """Run a check on the first rank, and raise what it raises on all: no rank waits for another, none repeats it.

    Raises:
        UserError: The check raised it.
    """
    faults: list[UserError | None] = [None]
    if is_main_process():
        try:
            check()
        except UserError as error:
            faults[0] = error
    broadcast_object_list(faults)
    if faults[0] is not None:
        raise faults[0]
