import pytest
import torch
from torch import nn

from mmseg_m2f.checkpoints.loading import load_weights


def small_model(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, classes, 1))


def test_load_weights__fills_the_model_and_passes_over_the_rest():
    model, other = small_model(), small_model()
    load_weights(model, {**other.state_dict(), "criterion.weight": torch.ones(1)}, source="a.pth")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def test_load_weights__takes_the_keys_of_a_distributed_model():
    model, other = small_model(), small_model()
    load_weights(model, {f"module.{name}": value for name, value in other.state_dict().items()}, source="a.pth")
    assert torch.equal(model[0].weight, other[0].weight)


def test_load_weights__other_shapes():
    with pytest.raises(ValueError, match=r"a.pth was made by another model: .*2.weight.*num_classes"):
        load_weights(small_model(3), small_model(5).state_dict(), source="a.pth")


def test_load_weights__missing_weights():
    weights = small_model().state_dict()
    del weights["2.bias"], weights["1.num_batches_tracked"]
    with pytest.raises(ValueError, match=r"a.pth lacks 1 of the model's 9 weights \(2.bias"):
        load_weights(small_model(), weights, source="a.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_load_weights__refuses_numbers_that_are_not_finite(value: float) -> None:
    weights = small_model().state_dict()
    name = next(iter(weights))
    weights[name].flatten()[0] = value
    with pytest.raises(ValueError, match=rf"Checkpoint a.pth: 1 of its \d+ weights hold NaN .*\({name}\)"):
        load_weights(small_model(), weights, source="a.pth")


def test_load_weights__takes_buffers_that_are_infinite_on_purpose() -> None:
    model = small_model()
    model.register_buffer("bias_mask", torch.tensor([0.0, -float("inf")]))
    load_weights(model, model.state_dict(), source="a.pth")
