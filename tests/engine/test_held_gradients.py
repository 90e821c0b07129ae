import pytest
import torch
from torch import nn
from torch.optim import SGD

from mmseg_m2f.engine.held_gradients import gradient_layout, has_gradients, held_gradients, restore_held_gradients
from tests.engine.test_zero import zero_optimizer


def test_held_gradients__of_a_plain_model_come_back() -> None:
    model = nn.Linear(2, 1)
    optimizer = SGD(model.parameters(), lr=0.1)
    assert held_gradients(model, optimizer) == {}
    assert not has_gradients(model, None)
    model(torch.ones(1, 2)).sum().backward()
    held = {name: gradient.clone() for name, gradient in held_gradients(model, optimizer).items()}
    model.zero_grad()
    restore_held_gradients(model, None, held)
    assert has_gradients(model, optimizer)
    assert torch.equal(model.weight.grad, torch.ones(1, 2))
    assert gradient_layout(model, optimizer) == "own"


@pytest.mark.parametrize(("stage", "layout"), [(1, "own"), (2, "means")])
def test_held_gradients__of_deepspeed_come_back(stage: int, layout: str) -> None:
    model, optimizer = zero_optimizer(stage=stage)
    assert gradient_layout(model, optimizer) == layout
    assert not has_gradients(model, optimizer)
    gradients = {"layer.weight": torch.ones(1, 2), "layer.bias": torch.ones(1)}
    restore_held_gradients(model, optimizer, gradients)
    assert has_gradients(model, optimizer)
    assert held_gradients(model, optimizer).keys() == gradients.keys()
