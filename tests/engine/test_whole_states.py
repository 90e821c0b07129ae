"""Two processes are played by one here; tests/e2e/test_zero.py runs two."""

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from mmseg_m2f.engine.whole_states import WholeStates

PROCESSES = 2


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 2)
        self.frozen = nn.Parameter(torch.zeros(4), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(1))


def groups(model: Model) -> list[dict]:
    return [
        dict(params=[model.body.weight, model.frozen, model.body.bias], lr=0.1, weight_decay=0.5),
        dict(params=[model.scale], lr=0.3),
    ]


def stepped(model: Model) -> AdamW:
    optimizer = AdamW(groups(model), lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        (model.body(torch.linspace(-1, 1, 6).view(2, 3)) * model.scale).square().sum().backward()
        optimizer.step()
    return optimizer


def flatten_as_deepspeed(optimizer: Optimizer, *, lengths: tuple[int, ...]) -> None:
    """Put a flat part of each group into its place."""
    for group, length in zip(optimizer.param_groups, lengths, strict=True):
        group["params"] = [torch.zeros(length, requires_grad=True)]


def spread_over_two(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[WholeStates], list[Optimizer], dict[str, object]]:
    """The states of each process, its optimizer of parts, and what the state dict was before."""
    whole, optimizers, before = [], [], {}
    for rank in range(PROCESSES):
        optimizer = stepped(model_copy(model))
        before = optimizer.state_dict()
        states = WholeStates(Model(), optimizer)
        flatten_as_deepspeed(optimizer, lengths=(5, 2))  # 8 and 1 numbers, filled up to 10 and 4
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        states.give_to(optimizer)
        whole.append(states)
        optimizers.append(optimizer)
    return whole, optimizers, before


def model_copy(model: Model) -> Model:
    copy = Model()
    copy.load_state_dict(model.state_dict())
    return copy


def test_give_to__cuts_states_into_equal_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    _, optimizers, before = spread_over_two(Model(), monkeypatch)
    whole = [before["state"][index]["exp_avg"].flatten() for index in (0, 2)]
    parts = [next(iter(optimizer.state.values()))["exp_avg"] for optimizer in optimizers]
    assert torch.equal(torch.cat(parts), torch.cat([*whole, torch.zeros(2)]))
    assert [float(next(iter(optimizer.state.values()))["step"]) for optimizer in optimizers] == [3, 3]


def test_gather__gives_the_state_dict_of_the_whole_model(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, optimizers, before = spread_over_two(Model(), monkeypatch)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: PROCESSES)

    def all_gather(parts: list[torch.Tensor], own: torch.Tensor) -> None:
        ((index, key),) = [
            (index, key)
            for index, group in enumerate(optimizers[1].param_groups)
            for key, value in optimizers[1].state[group["params"][0]].items()
            if value.data_ptr() == own.data_ptr()
        ]
        for part, optimizer in zip(parts, optimizers, strict=True):
            part.copy_(optimizer.state[optimizer.param_groups[index]["params"][0]][key])

    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    gathered = whole[1].gather(optimizers[1])
    assert gathered["param_groups"] == before["param_groups"]
    assert list(gathered["state"]) == [0, 2, 3]
    for index, state in before["state"].items():
        assert {key: value.shape for key, value in gathered["state"][index].items()} == {
            key: value.shape for key, value in state.items()
        }
        assert all(torch.equal(gathered["state"][index][key], value) for key, value in state.items())


def test_whole_states__leave_out_what_is_not_trained() -> None:
    model = Model()
    optimizer = AdamW(groups(model), lr=1.0)
    states = WholeStates(model, optimizer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 1]
    assert [len(group["params"]) for group in states.groups] == [3, 1]
    model.scale.requires_grad = False
    states = WholeStates(model, optimizer)
    assert len(optimizer.param_groups) == 1
    assert len(states.groups) == 2


def test_gather__has_no_states_before_the_first_step() -> None:
    model = Model()
    optimizer = AdamW(groups(model), lr=1.0)
    states = WholeStates(model, optimizer)
    flatten_as_deepspeed(optimizer, lengths=(10, 4))
    states.give_to(optimizer)
    assert states.gather(optimizer)["state"] == {}


def test_give_to__takes_zeros_for_a_parameter_without_state(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    optimizer = AdamW([dict(params=[model.body.weight, model.body.bias])], lr=0.1)
    optimizer.state[model.body.bias] = dict(exp_avg=torch.ones(2))
    states = WholeStates(model, optimizer)
    flatten_as_deepspeed(optimizer, lengths=(8,))
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    states.give_to(optimizer)
    (state,) = optimizer.state.values()
    assert state["exp_avg"].tolist() == [0.0] * 6 + [1.0] * 2


def test_give_to__refuses_other_numbers_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    optimizer = stepped(model)
    optimizer.state[model.body.bias]["step"] = torch.tensor(1.0)
    states = WholeStates(model, optimizer)
    flatten_as_deepspeed(optimizer, lengths=(10, 4))
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    with pytest.raises(ValueError, match=r"'step' differs between parameters of one group \(1, 3\)"):
        states.give_to(optimizer)
