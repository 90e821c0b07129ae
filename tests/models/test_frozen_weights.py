import pytest
import torch
from torch import nn

from mmseg_m2f.models.frozen_weights import STATISTICS, fill_frozen, lacks_frozen, without_frozen


def build(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    model.register_load_state_dict_pre_hook(fill_frozen)
    return model


def test_without_frozen__keeps_what_is_trained_and_buffers():
    model = build()
    weights = without_frozen(model, model.state_dict())
    assert set(weights) == {name for name in model.state_dict() if not name.startswith("0.")} | {STATISTICS}
    assert lacks_frozen(weights)
    assert not lacks_frozen(model.state_dict())
    expected = torch.tensor([[model[0].bias.mean(), model[0].bias.square().mean().sqrt()]])
    torch.testing.assert_close(weights[STATISTICS][:1].float(), expected)


def test_fill_frozen__the_same_start_gives_the_same_model():
    model, again = build(), build()
    nn.init.normal_(model[2].weight)
    again[0].weight.data *= 1 + 1e-6  # rounding, as where positions are resized on another machine
    outcome = again.load_state_dict(without_frozen(model, model.state_dict()))
    assert (outcome.missing_keys, outcome.unexpected_keys) == ([], [])
    assert torch.equal(again[2].weight, model[2].weight)
    torch.testing.assert_close(again[0].weight, model[0].weight)


def test_fill_frozen__below_a_wrapper():
    model, wrapper = build(), nn.ModuleDict(dict(module=build()))
    nn.init.normal_(model[2].weight)
    weights = {f"module.{name}": value for name, value in model.state_dict().items()}
    wrapper.load_state_dict(without_frozen(model, weights, prefix="module."))
    assert torch.equal(wrapper["module"][2].weight, model[2].weight)


@pytest.mark.parametrize("trained", [False, True])
def test_fill_frozen__another_start_is_refused(trained):
    model, again = build(), build(0 if trained else 1)
    if trained:
        again[0].weight.data += 1e-3
    with pytest.raises(ValueError, match=r"got one with other values in \d of them \(0.*checkpoint_path or init_cfg"):
        again.load_state_dict(without_frozen(model, model.state_dict()))


def test_fill_frozen__another_model_is_refused():
    model = build()
    weights = without_frozen(model, model.state_dict())
    del weights["2.bias"]
    with pytest.raises(ValueError, match="got one with 3 parameters that the checkpoint lacks"):
        build().load_state_dict(weights)


def test_without_frozen__nothing_is_frozen():
    with pytest.raises(ValueError, match="got one that trains all of them"):
        without_frozen(build().requires_grad_(True), {})
