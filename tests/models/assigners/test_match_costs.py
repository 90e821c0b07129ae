"""Match costs by hand, and what they ask their inputs for."""

import pytest
import torch
from mmengine.registry import TASK_UTILS

from mmseg_m2f.core.targets import stack_targets
from mmseg_m2f.models.assigners.match_costs import MatchInputs
from mmseg_m2f.structures import BACKGROUND, BoxPrediction, MaskReadings, MaskTarget

#: Two queries: the first is sure of class 1, the second undecided among classes 0, 1 and "no object".
CLASS_LOGITS = torch.tensor([[[-1e4, 0.0, -1e4], [0.0, 0.0, 0.0]]])
BOXES = torch.tensor([[[0.5, 0.5, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5]]])
TARGET = MaskTarget(
    torch.tensor([1]), torch.full((1, 4, 4), BACKGROUND), "image.png", torch.tensor([[0.5, 0.5, 0.5, 0.5]])
)


class TwoPoints:
    """A sampling of one pixel inside and one outside: logits ±10 of the first query, 0 of the second."""

    drawn = 0

    def size_in_matching(self, *_: object) -> int:
        return 2

    def size_in_loss(self, *_: object) -> int:
        return 2

    def sums_for_matching(self, *_: object) -> None:
        return None

    def for_loss(self, *_: object) -> MaskReadings:
        raise AssertionError("no loss is computed")

    def for_matching(self, predictions: list, targets: object, images: slice) -> MaskReadings:
        self.drawn += 1
        logits = torch.tensor([[10.0, -10.0], [0.0, 0.0]]).expand(1, 1, 2, 2)
        return MaskReadings(logits, torch.tensor([[[[1.0, 0.0]]]]), torch.ones(1, 1, 2))


def costs(name: str, *, sampling: object = None, **arguments: float) -> list[float]:
    """What the two queries cost for the one segment."""
    inputs = MatchInputs([BoxPrediction(CLASS_LOGITS, BOXES)], stack_targets([TARGET]), slice(None), sampling)
    return TASK_UTILS.build(dict(type=f"mmseg_m2f.{name}", **arguments))(inputs).flatten().tolist()


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("ClassCost", dict(weight=3.0), [-3, -1]),
        ("ClassFocalCost", dict(weight=1.0), [-0.0866434, -0.0866434]),  # probability 1/2 of class 1
        ("BoxL1Cost", dict(weight=2.0), [0, 1]),  # two centres a quarter apart
        ("BoxGIoUCost", dict(weight=1.0), [-1, -(1 / 7 - 2 / 9)]),  # 1 of 7 sixteenths; 2 of 9 of the hull are empty
        ("MaskBCECost", dict(weight=1.0), [0, 0.693147]),
        ("MaskDiceCost", dict(weight=1.0, smooth=0.0), [0, 0.5]),
        ("MaskFocalCost", dict(weight=1.0, alpha=0.25, gamma=2.0), None),
    ],
)
def test_match_costs__by_hand(name: str, arguments: dict, expected: list[float] | None) -> None:
    found = costs(name, sampling=TwoPoints(), **arguments)
    if expected is None:  # at probability 1/2: -1/4 · log 1/2 of alpha, and of 1 - alpha, averaged over the two points
        focal = 0.25 * 0.693147
        expected = [0, (0.25 * focal + 0.75 * focal) / 2]
    assert found == pytest.approx(expected, abs=1e-3)


def test_match_costs__masks_without_sampling_are_refused() -> None:
    with pytest.raises(ValueError, match="the criterion has no sampling. Set decode_head.criterion.sampling"):
        costs("MaskBCECost")


def test_match_inputs__class_and_box_costs_sample_no_points() -> None:
    sampling = TwoPoints()
    assert costs("ClassCost", sampling=sampling, weight=1.0) == pytest.approx([-1, -1 / 3])
    assert costs("BoxL1Cost", sampling=sampling, weight=1.0) == pytest.approx([0, 0.5])
    assert sampling.drawn == 0
