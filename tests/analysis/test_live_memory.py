import torch

from mmseg_m2f.analysis.live_memory import LiveMemory


def test_live_memory__peak_is_what_is_alive_at_once() -> None:
    x = torch.ones(1000)
    with LiveMemory() as memory:
        first = x + 1  # 4000 bytes
        second = first * 2  # 8000
        del first  # 4000
        third = second.double()  # 12000
        del second, third
        assert (memory.live, memory.peak) == (0, 12000)


def test_live_memory__views_and_what_was_there_before_are_free() -> None:
    x = torch.ones(1000)
    with LiveMemory() as memory:
        kept = [x.view(10, 100), x[2:5], x.t() if x.dim() == 2 else x.unsqueeze(0)]
        x.add_(1)
        assert (memory.live, memory.peak, len(kept)) == (0, 0, 3)


def test_live_memory__restarts_at_what_is_alive() -> None:
    with LiveMemory() as memory:
        kept = torch.ones(100) + 1
        (torch.ones(5000) + 1).sum()
        memory.restart()
        assert memory.peak == memory.live == kept.nbytes
