"""The data of an iteration follow from seed, rank and iteration."""

import time
from itertools import islice

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader, Dataset

from mmseg_m2f.engine.resume.data_order import NumberedBatches, OrderedBatches, batch_seed, indices_from, order_data


class Noisy(Dataset):
    """Gives each index with a random number."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, np.random.rand()  # noqa: NPY002


def loader(sampler: type, *, workers: int = 0, size: int = 2) -> DataLoader:
    data = Noisy()
    return DataLoader(data, batch_size=size, sampler=sampler(data, seed=3), num_workers=workers)


def values(batches, count: int) -> list:
    return [[part.tolist() for part in batch] for batch in islice(batches, count)]


@pytest.mark.parametrize("sampler", [InfiniteSampler, DefaultSampler])
@pytest.mark.parametrize("start", [1, 4, 9])
def test_seek__goes_on_like_the_whole_run(sampler, start):
    whole, resumed = loader(sampler), loader(sampler)
    order_data(whole, seed=5).seek(0, samples=0)
    epoch = order_data(resumed, seed=5).seek(start, samples=start * 2)
    assert values(OrderedBatches(whole), 14)[start:] == values(OrderedBatches(resumed, epoch=epoch), 14 - start)


def test_order_data__does_not_depend_on_workers():
    alone, helped = loader(InfiniteSampler), loader(InfiniteSampler, workers=2)
    order_data(alone, seed=5)
    order_data(helped, seed=5)
    assert values(OrderedBatches(alone), 5) == values(OrderedBatches(helped), 5)


def test_order_data__draws_nothing_from_the_global_generators():
    batches = loader(InfiniteSampler)
    order_data(batches, seed=5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    values(OrderedBatches(batches), 3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_indices_from__equals_the_sampler_s_own_order():
    for shuffle in (True, False):
        sampler = InfiniteSampler(Noisy(), shuffle=shuffle, seed=3)
        sampler.rank, sampler.world_size = 1, 3
        own = list(islice(sampler._indices_of_rank(), 30))
        assert own[11:] == list(islice(indices_from(sampler, 11), 19))


def test_indices_from__late_iterations_start_as_fast_as_early_ones():
    class Large(Noisy):
        def __len__(self) -> int:
            return 20_000

    sampler = InfiniteSampler(Large(), seed=3)
    start = time.process_time()
    next(indices_from(sampler, 1_600_000))  # 100,000 batches of 16: 80 shuffles, and no list of them
    assert time.process_time() - start < 2


def test_seek__iterates_over_the_rest_of_an_epoch():
    batches = loader(DefaultSampler)
    numbered = order_data(batches, seed=5)
    assert numbered.seek(2, samples=4, epoch=0) == 0
    assert [batch.number for batch in numbered] == [2, 3]
    assert [batch.number for batch in numbered] == [4, 5, 6, 7]


def test_ordered_batches__passes_over_a_replay():
    batches = loader(InfiniteSampler)
    order_data(batches, seed=5).seek(2, samples=4)
    ordered = OrderedBatches(batches, replayed=2)
    assert [next(ordered), next(ordered)] == [None, None]
    whole = loader(InfiniteSampler)
    order_data(whole, seed=5)
    assert values(ordered, 1) == values(OrderedBatches(whole), 3)[2:]


def test_batch_seed__differs_for_rank_and_number():
    assert len({batch_seed(seed, rank, number) for seed in (0, 1) for rank in (0, 1) for number in range(100)}) == 400


def test_numbered_batches__shows_the_attributes_of_the_batch_sampler():
    assert NumberedBatches(loader(InfiniteSampler, size=3).batch_sampler, None).batch_size == 3
