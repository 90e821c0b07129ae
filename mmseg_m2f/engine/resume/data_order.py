"""Which images the batch of an iteration holds, and how they are augmented, whatever ran before it.

Batches carry their number from the sampler to the worker that loads them, where the generators are set from seed,
rank and number. So the data of an iteration depend neither on the number of workers nor on what a worker loaded
before, and a resumed run starts at its iteration without loading, or drawing, what came earlier.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import print_log
from torch.utils.data import BatchSampler, DataLoader

from mmseg_m2f.engine.resume.random_states import separate_randomness

_T = TypeVar("_T")


@runtime_checkable
class _Batches(Protocol):
    """A batch sampler."""

    def __iter__(self) -> Iterator[list[int]]: ...

    def __len__(self) -> int: ...


@runtime_checkable
class _Dataset(Protocol):
    """A dataset with indices."""

    def __getitem__(self, index: int) -> object: ...


class NumberedBatch(list[_T]):
    """The indices of a batch, with its number since the start of training; it keeps it on the way to a worker."""

    number: int = 0


class NumberedBatches:
    """Stands for the batch sampler of a loader: gives its batches with their numbers, from any number on.

    Args:
        batches: The batch sampler.
        sampler: Where that takes its indices from; `set_epoch` is called on it where an epoch ended.
    """

    def __init__(self, batches: _Batches, sampler: object) -> None:
        self._batches = batches
        self._sampler = sampler
        self._number = 0
        self._skip = 0

    def __iter__(self) -> Iterator[NumberedBatch[int]]:
        skip, self._skip = self._skip, 0
        for indices in islice(self._batches, skip, None):
            batch = NumberedBatch(indices)
            batch.number = self._number
            self._number += 1
            yield batch

    def __len__(self) -> int:
        return len(self._batches)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") or name == "_batches":
            raise AttributeError(name)
        return getattr(self._batches, name)

    @property
    def is_endless(self) -> bool:
        """Whether an epoch never ends."""
        return any(type(part).__name__.startswith("Infinite") for part in (self._batches, self._sampler))

    def seek(self, number: int, *, samples: int, epoch: int | None = None) -> int:
        """Let the next iteration over this start where the run is.

        Args:
            number: How many batches a rank has had; gives the random generators.
            samples: How many samples all ranks have had; gives the place in the data.
            epoch: The epoch that the training loop is in, if it counts epochs.

        Returns:
            The epoch in which the next batch lies; 0 where epochs never end.
        """
        self._number = number
        sampler = self._sampler
        if isinstance(sampler, InfiniteSampler) and type(self._batches) is BatchSampler:
            sampler.indices = indices_from(sampler, samples // sampler.world_size)
            return 0
        size = getattr(self._batches, "batch_size", None)
        batches = samples // (size * get_world_size()) if size else number
        if self.is_endless:
            if batches:
                print_log(f"Data: the sampler draws the indices of {batches} batches again.", logger="current")
            self._skip = batches
            return 0
        epoch = batches // len(self._batches) if epoch is None else epoch
        self._skip = max(batches - epoch * len(self._batches), 0)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        return epoch


class SeededFetch:
    """Loads a batch with random generators that follow from seed, rank and number of the batch.

    torch's loader asks a dataset that has `__getitems__` for a whole batch; this is set as that attribute.
    """

    def __init__(self, dataset: _Dataset, *, seed: int, rank: int) -> None:
        self._dataset = dataset
        self._seed = seed
        self._rank = rank
        self._whole = getattr(type(dataset), "__getitems__", None)

    def __call__(self, indices: Iterable[int]) -> list[object]:
        number = getattr(indices, "number", None)
        if number is None:
            return self._load(indices)
        with separate_randomness(batch_seed(self._seed, self._rank, number)):
            return self._load(indices)

    def _load(self, indices: Iterable[int]) -> list[object]:
        if self._whole is not None:
            return self._whole(self._dataset, list(indices))
        return [self._dataset[index] for index in indices]


class OrderedBatches:
    """Stands for the iterator of `IterBasedTrainLoop`, which replays the loader when a run is resumed.

    Args:
        epoch: In which the loader starts.
        replayed: So many times mmengine 0.10.7 calls `next` to replay; nothing is loaded then.
    """

    def __init__(self, loader: DataLoader, *, epoch: int = 0, replayed: int = 0) -> None:
        self._loader = loader
        self._epoch = epoch
        self._replayed = replayed
        self._iterator: Iterator | None = None

    def __iter__(self) -> "OrderedBatches":
        return self

    def __next__(self) -> object:
        if self._replayed:
            self._replayed -= 1
            return None
        if self._iterator is None:
            self._iterator = iter(self._loader)
        try:
            return next(self._iterator)
        except StopIteration:
            self._epoch += 1
            for part in _parts(self._loader):
                if hasattr(part, "set_epoch"):
                    part.set_epoch(self._epoch)
                    break
            self._iterator = iter(self._loader)
            return next(self._iterator)

    def skip_iter(self, num_iters: int) -> None:
        """Nothing: the loader stands where it has to."""


def order_data(loader: DataLoader, *, seed: int) -> NumberedBatches | None:
    """Make the data of each iteration a function of seed, rank and iteration; None where a loader forms no batches.

    The loader gets a generator of its own, so that starting it draws no number that a model would draw.
    """
    loader.generator = torch.Generator().manual_seed(seed)
    if loader.batch_sampler is None:
        return None
    if isinstance(loader.batch_sampler, NumberedBatches):
        return loader.batch_sampler
    numbered = NumberedBatches(
        cast(_Batches, loader.batch_sampler), getattr(loader.batch_sampler, "sampler", loader.sampler)
    )
    loader.__dict__["batch_sampler"] = numbered  # torch refuses to assign it
    loader.dataset.__getitems__ = SeededFetch(loader.dataset, seed=seed, rank=get_rank())  # type: ignore[attr-defined]
    return numbered


def batch_seed(seed: int, rank: int, number: int) -> int:
    """A seed for one batch, spread evenly over 63 bits."""
    words = np.random.SeedSequence([seed, rank, number]).generate_state(2, np.uint32)
    return int(words[0]) << 31 ^ int(words[1])


def indices_from(sampler: InfiniteSampler, had: int) -> Iterator[int]:
    """The indices of a rank after the first `had`; whole epochs are passed over without listing them."""
    first = sampler.rank + had * sampler.world_size  # in the order of all ranks
    epochs, offset = divmod(first, sampler.size)
    generator = torch.Generator()
    generator.manual_seed(sampler.seed)

    def order() -> Iterator[int]:
        for _ in range(epochs if sampler.shuffle else 0):
            torch.randperm(sampler.size, generator=generator)
        while True:
            if sampler.shuffle:
                yield from torch.randperm(sampler.size, generator=generator).tolist()
            else:
                yield from range(sampler.size)

    return islice(order(), offset, None, sampler.world_size)


def sampler_state(loader: DataLoader) -> dict[str, int]:
    """The seed of the sampler, which mmengine draws where the config gives none."""
    seeds = [part.seed for part in _parts(loader) if isinstance(getattr(part, "seed", None), int)]
    return {"seed": seeds[0]} if seeds else {}


def restore_sampler(loader: DataLoader, state: Mapping[str, int]) -> None:
    """Give the sampler the seed of a run that is resumed."""
    for part in _parts(loader):
        if isinstance(getattr(part, "seed", None), int) and "seed" in state:
            part.seed = state["seed"]


def _parts(loader: DataLoader) -> list[Any]:
    """The sampler and the batch sampler of a loader."""
    return [loader.sampler, getattr(loader.batch_sampler, "sampler", None), loader.batch_sampler]
