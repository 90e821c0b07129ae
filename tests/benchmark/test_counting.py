"""Counts of code whose operators and reads can be counted by hand."""

from collections.abc import Callable

import torch
from torch import Tensor

from mmseg_m2f.benchmark.counting import count


def test_count__operators_of_forward_and_backward() -> None:
    x = torch.ones(3, requires_grad=True)
    with count() as forward:
        y = (x * 2).sum()  # mul, sum
    assert forward.ops == 2
    with count() as backward:
        y.backward()  # ones_like, expand, mul; detach for the gradient
    assert backward.ops == 4
    assert not forward.host_reads
    assert not backward.host_reads


def test_count__each_kind_of_host_read() -> None:
    x = torch.tensor([1.0, 0.0, 2.0, 2.0])
    with count() as counts:
        _ = x.sum().item()
        _ = float(x[0]) > 0
        _ = bool(x[1] > 0)
        _ = x.nonzero()
        _ = x[x > 0]
        x[x > 5] = 0
        _ = x.masked_select(x > 0)
        _ = x.unique()
        _ = x.cpu()
        _ = x.tolist()
        _ = torch.equal(x, x)
    assert dict(counts.host_reads) == {
        "_local_scalar_dense": 3,
        "nonzero": 1,
        "index by a mask": 1,
        "index_put_ by a mask": 1,
        "masked_select": 1,
        "_unique2": 1,
        "copy to the host": 2,
        "equal": 1,
    }
    assert counts.cuda_syncs is None


def test_count__reading_what_was_copied_is_free() -> None:
    x = torch.arange(6.0)
    with count() as counts:
        on_host = x.cpu()
        _ = on_host.sum().item() + sum(on_host[2:].tolist())
        _ = (on_host.numpy() + 1).sum()
        _ = on_host[on_host > 2]
    assert dict(counts.host_reads) == {"copy to the host": 1}
    with count() as again:
        _ = x.sum().item()  # the original still counts as being on the device
    assert dict(again.host_reads) == {"_local_scalar_dense": 1}


def test_count__tensors_that_stay_on_the_host() -> None:
    def read(x: Tensor) -> float:
        return x.item()

    x = torch.ones(())
    with count(on_host=[x]) as counts:
        read(x)
    assert not counts.host_reads


def test_count__integer_index_waits_for_nothing() -> None:
    with count() as counts:
        _ = torch.arange(5)[torch.tensor([1, 2])]
    assert not counts.host_reads


def test_count__compiled_code_stays_compiled() -> None:
    ran: list[str] = []

    def backend(graph: Callable[..., object], _: object) -> Callable[..., object]:
        def run(*inputs: object) -> object:
            ran.append("compiled")
            return graph(*inputs)

        return run

    compiled = torch.compile(lambda x: x * 2 + 1, backend=backend)
    x = torch.ones(3)
    compiled(x)
    ran.clear()
    with count() as counts:
        compiled(x)
    assert ran == ["compiled"]
    assert counts.ops == 2
