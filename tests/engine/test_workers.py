"""Data workers that cannot hand a batch over."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mmseg_m2f.engine.workers import named_faults, worker_remedy

SHORT = "unable to write to file </torch_7_1_0>: No space left on device (28)"


class Unsendable:
    """Stands for a tensor where shared memory is full: the batch is made, and cannot be sent."""

    def __reduce__(self) -> tuple:
        raise RuntimeError(SHORT)


class Samples(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> object:
        return Unsendable() if index == 1 else torch.zeros(1)


def batches(dataset: Dataset) -> DataLoader:
    # A timeout, so that a fault in the test's subject fails instead of waiting forever.
    return DataLoader(dataset, batch_size=None, num_workers=1, timeout=30, multiprocessing_context="fork")


def test_named_faults__a_lost_batch_ends_the_run_with_a_remedy() -> None:
    with (
        pytest.raises(
            RuntimeError, match=r"/dev/shm\) is too small.*No space left.*num_workers=0.*--shm-size"
        ) as raised,
        named_faults(),
    ):
        list(batches(Samples()))
    assert "DataLoader timed out" not in str(raised.value)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Bus error. ... out of shared memory.", "--shm-size"),
        (SHORT, "num_workers=0"),
        ("received 0 items of ancdata", "ulimit -n"),
        ("[Errno 24] Too many open files: '/dev/shm/a'", "ulimit -n"),
        ("mat1 and mat2 shapes cannot be multiplied", None),
    ],
)
def test_named_faults__translates_what_torch_says(message: str, said: str | None) -> None:
    assert (worker_remedy(message) is None) == (said is None)
    with pytest.raises(RuntimeError, match=said or message), named_faults():
        raise RuntimeError(message)
