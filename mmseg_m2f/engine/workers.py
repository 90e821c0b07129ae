"""Data workers that lose a batch say so, and what a machine lacks is named with a remedy."""

import contextlib
from collections.abc import Iterator
from multiprocessing.queues import Queue

from torch._utils import ExceptionWrapper
from torch.utils.data import get_worker_info

from mmseg_m2f.errors import ResourceError

_KEEP_QUIET = Queue._on_queue_feeder_error  # type: ignore[attr-defined]
_SHARED_MEMORY_SIGNS = ("shared memory", "Bus error", "unable to write to file </torch", "unable to open shared memory")
_OPEN_FILES_SIGNS = ("ancdata", "Too many open files")


@contextlib.contextmanager
def named_faults() -> Iterator[None]:
    """Run with data workers whose faults end the run with a remedy.

    A worker hands a batch over in shared memory. Where that is full, Python prints a traceback in the worker, drops
    the batch, and the run waits for it forever; here the fault is sent in the batch's place.

    Raises:
        RuntimeError: Shared memory or the number of open files does not suffice.
    """
    Queue._on_queue_feeder_error = _send_fault  # type: ignore[attr-defined]
    try:
        yield
    except (RuntimeError, OSError) as error:
        if isinstance(error, ResourceError) or (remedy := worker_remedy(str(error))) is None:
            raise
        raise ResourceError(remedy) from error
    finally:
        Queue._on_queue_feeder_error = _KEEP_QUIET  # type: ignore[attr-defined]


def worker_remedy(message: str) -> str | None:
    """What to do about a fault of a data worker; None for faults of another kind."""
    first = message.strip().splitlines()[-1] if message.strip() else ""
    if any(sign in message for sign in _OPEN_FILES_SIGNS):
        return (
            f"Data workers: too many files are open ({first}). Raise the limit (`ulimit -n 65536`), or set "
            "train_dataloader.num_workers=0 and val_dataloader.num_workers=0."
        )
    if any(sign in message for sign in _SHARED_MEMORY_SIGNS):
        return (
            f"Data workers: shared memory (/dev/shm) is too small for the batches ({first}). Set "
            "train_dataloader.num_workers=0 and val_dataloader.num_workers=0 (or fewer workers), or give more of it: "
            "`docker run --shm-size=8g` or `--ipc=host`, `mount -o remount,size=8g /dev/shm`."
        )
    return None


def _send_fault(queue: Queue, error: Exception, item: object) -> None:
    """Stands for `Queue._on_queue_feeder_error`: in a data worker `item` is the number of a batch, and the batch."""
    if get_worker_info() is None or not isinstance(item, tuple) or len(item) != 2:
        _KEEP_QUIET(error, item)
        return
    fault = ResourceError(worker_remedy(str(error)) or f"Data workers: a batch could not be handed over: {error}.")
    queue.put((item[0], ExceptionWrapper((type(fault), fault, error.__traceback__), where="in a data worker")))
