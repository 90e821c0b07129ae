"""Class weights of losses and the names of the classes."""

import pytest
from mmseg.models.losses import CrossEntropyLoss
from torch import nn

from mmseg_m2f.engine import class_weights
from mmseg_m2f.engine.class_weights import check_class_weights
from mmseg_m2f.models.losses import ClassLoss


def model(*weights: object) -> nn.Module:
    return nn.ModuleDict({f"loss{index}": CrossEntropyLoss(class_weight=w) for index, w in enumerate(weights)})


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(class_weights, "print_log", lambda text, **_: lines.append(text))
    return lines


def test_check_class_weights__says_once_which_is_whose(log: list[str]) -> None:
    check_class_weights(model([1.0, 2.5, 0.1], [1.0, 2.5, 0.1], None), ["road", "car"])
    assert log == ["model.loss0.class_weight, by position: road 1, car 2.5, no object 0.1."]


def test_check_class_weights__equal_ones_and_files_say_nothing(log: list[str]) -> None:
    check_class_weights(model([1.0, 1.0, 0.1], [2.0, 2.0], None), ["road", "car"])
    check_class_weights(nn.ModuleDict(dict(loss=ClassLoss(class_weight=[1.0, 1.0]))), ["road", "car"])
    assert not log


@pytest.mark.parametrize("number", [1, 4])
def test_check_class_weights__another_number_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=rf"model.loss0.class_weight has {number} entries.*2 classes \(road, car\)"):
        check_class_weights(model([1.0] * number), ["road", "car"])
