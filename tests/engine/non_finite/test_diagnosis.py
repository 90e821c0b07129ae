"""The first layer, gradient or weight that is not finite."""

from contextlib import nullcontext

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmseg_m2f.engine.non_finite.diagnosis import Diagnosis, diagnose


class Chain(BaseModel):
    """Two layers and a mean; `fault` is a function between them."""

    def __init__(self, fault: object = None) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 1)
        self.fault = fault or (lambda x: x)

    def forward(self, inputs: Tensor, data_samples: object = None, mode: str = "loss") -> dict:
        return {"loss": self.second(self.fault(self.first(inputs))).mean()}


def look(model: nn.Module, images: Tensor | None = None) -> Diagnosis:
    batch = dict(inputs=torch.ones(1, 2) if images is None else images, data_samples=None)
    return diagnose(model, batch, context=nullcontext)


def test_diagnose__finite():
    assert not look(Chain())


def test_diagnose__layer():
    found = look(Chain(lambda x: x / 0))
    assert found.layer is not None
    assert found.layer.startswith("second (Linear, float32): 1 of 1 numbers; its input is not finite")
    assert "loss = " in found.losses[0]


def test_diagnose__gradient_with_a_finite_loss():
    found = look(Chain(lambda x: (x * 0).abs().sqrt()))  # the root has an infinite slope at 0
    assert found.layer is None
    assert found.gradient == "that of the output of first (Linear)"
    assert found.parameters == ["first.weight", "first.bias"]


def test_diagnose__weight():
    model = Chain()
    model.first.weight.data[0, 0] = float("nan")
    assert look(model).weights == ["first.weight"]
    assert all(parameter.grad is None for parameter in model.parameters())
