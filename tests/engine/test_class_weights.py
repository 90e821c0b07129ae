"""Class weights of losses and the names of the classes."""

import pytest
import torch
from mmseg.models.losses import CrossEntropyLoss
from torch import nn

from mmseg_m2f.engine import class_weights
from mmseg_m2f.engine.class_weights import settle_class_weights
from mmseg_m2f.models.losses import ClassLoss


def model(*weights: object) -> nn.Module:
    return nn.ModuleDict({f"loss{index}": CrossEntropyLoss(class_weight=w) for index, w in enumerate(weights)})


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(class_weights, "print_log", lambda text, **_: lines.append(text))
    return lines


def test_settle_class_weights__says_once_which_is_whose(log: list[str]) -> None:
    settle_class_weights(model([1.0, 2.5, 0.1], [1.0, 2.5, 0.1], None), ["road", "car"])
    assert log == ["model.loss0.class_weight, by position: road 1, car 2.5, no object 0.1."]


def test_settle_class_weights__equal_ones_and_files_say_nothing(log: list[str]) -> None:
    settle_class_weights(model([1.0, 1.0, 0.1], [2.0, 2.0], None), ["road", "car"])
    settle_class_weights(nn.ModuleDict(dict(loss=ClassLoss(class_weight=[1.0, 1.0]))), ["road", "car"])
    assert not log


@pytest.mark.parametrize("number", [1, 4])
def test_settle_class_weights__another_number_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=rf"model.loss0.class_weight has {number} entries.*2 classes \(road, car\)"):
        settle_class_weights(model([1.0] * number), ["road", "car"])


@pytest.mark.parametrize(
    "weights",
    [{"road": 1, "Traffic light": 2.5}, {"traffic_light": 2.5, "road": 1}, {"TrafficLight": 2.5, "Road": 1.0}],
)
def test_settle_class_weights__names_are_put_into_the_order_of_the_data(weights: dict) -> None:
    losses = nn.ModuleList([CrossEntropyLoss(class_weight=dict(weights)), ClassLoss(class_weight=dict(weights))])
    settle_class_weights(losses, ["road", "traffic light"])
    assert [loss.class_weight for loss in losses] == [[1.0, 2.5]] * 2
    listed = ClassLoss(class_weight=[1.0, 2.5])
    logits, classes = torch.randn(1, 3, 3), torch.tensor([[0, 1, 2]])
    assert torch.equal(losses[1](logits, classes), listed(logits, classes))
    scores, labels = torch.randn(2, 2, 4, 4), torch.randint(2, (2, 4, 4))
    assert torch.equal(losses[0](scores, labels), CrossEntropyLoss(class_weight=[1.0, 2.5])(scores, labels))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"road": 1.0}, r"loss0.class_weight: expected .* 2 classes .* got 1, none for 'car'"),
        ({"road": 1.0, "cars": 2.0}, r"got 2, 'cars' of no such class, none for 'car'.*did you mean 'car'"),
        ({"road": 1.0, "car": 2.0, "sky": 3.0}, r"got 3, 'sky' of no such class\."),
        ({"road": 1.0, "car": "2"}, r"loss0.class_weight\['car'\]: expected a number from 0 on, got '2'"),
        ({"road": 1.0, "car": float("nan")}, r"expected a number from 0 on, got nan"),
        ({"road": -1.0, "car": 1.0}, r"expected a number from 0 on, got -1.0"),
        ({"road": True, "car": 1.0}, r"expected a number from 0 on, got True"),
        ({}, r"got 0, none for 'road', 'car'"),
    ],
)
def test_settle_class_weights__other_names_are_refused(weights: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        settle_class_weights(model(weights), ["road", "car"])


def test_class_loss__names_without_an_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected class_weight as a list, got one by name"):
        ClassLoss(class_weight={"road": 1.0})(torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.long))
