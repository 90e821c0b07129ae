import torch

from mmseg_m2f.core.chunks import ChunkBudget


def test_chunk_budget__whole_items_and_at_least_one():
    budget = ChunkBudget(cpu=100, gpu=1000)
    assert [budget.fitting(size, torch.device("cpu")) for size in (0, 30, 101)] == [100, 3, 1]
    assert budget.fitting(30, torch.device("meta")) == 33
