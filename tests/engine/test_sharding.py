"""In one process, whose part is the whole; tests/e2e/test_sharded.py runs two."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from mmseg_m2f.engine.sharding import blocks, gather_parameters, is_sharded, local_part, shard, whole, with_part


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)))
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(inputs))


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.linspace(-1, 1, 12).view(3, 4)).square().sum().backward()
    optimizer.step()


def test_blocks__are_the_outermost_large_members_of_lists() -> None:
    model = Model()
    assert blocks(model, min_parameters=20) == [model.backbone[0], model.backbone[1][0], model.backbone[1][2]]
    assert blocks(model, min_parameters=40) == [model.backbone[1][0]]
    assert blocks(nn.Linear(4, 4), min_parameters=1) == []


def test_shard__keeps_weights_states_and_steps(group: None) -> None:
    torch.manual_seed(0)
    plain, sharded = Model(), Model()
    sharded.load_state_dict(plain.state_dict())
    optimizers = [torch.optim.AdamW(model.parameters(), lr=0.1) for model in (plain, sharded)]
    for model, optimizer in zip((plain, sharded), optimizers, strict=True):
        stepped(model, optimizer)
    shard(sharded, optimizers[1], device="cpu", min_parameters=20)
    assert is_sharded(sharded)
    assert not is_sharded(plain)
    for model, optimizer in zip((plain, sharded), optimizers, strict=True):
        stepped(model, optimizer)
    for name, value in plain.state_dict().items():
        assert torch.equal(sharded.state_dict()[name], value)
    expected, got = (optimizer.state_dict() for optimizer in optimizers)
    assert got["param_groups"] == expected["param_groups"]
    for index, state in expected["state"].items():
        assert all(torch.equal(got["state"][index][key], value) for key, value in state.items())


def test_gather_parameters__leaves_them_whole_until_freed(group: None) -> None:
    model = Model()
    shard(model, None, device="cpu", min_parameters=20)
    gather_parameters(model, stay=True)
    model(torch.zeros(1, 4))
    assert not any(hasattr(parameter, "to_local") for parameter in model.parameters())
    gather_parameters(model, stay=False)
    assert all(hasattr(parameter, "to_local") for parameter in model.parameters())


def test_parts__make_the_whole(group: None) -> None:
    model = Model()
    weight = model.head.weight.detach().clone()
    shard(model, None, device="cpu", min_parameters=20)
    parameter = model.head.weight
    assert torch.equal(whole(with_part(parameter, local_part(parameter).detach())), weight)
    assert all(part is weight for part in (local_part(weight), whole(weight), with_part(weight, weight)))
