import math

import pytest
import torch
from mmengine.registry import MODELS

from mmseg_m2f.models.losses import criterion_losses

LOGITS = torch.tensor([[0.0, math.log(3.0)]])  # probabilities 1/2 and 3/4
MASKS = torch.tensor([[1.0, 0.0]])
ALL = torch.ones(1, 2)


def build(type: str, **options: object) -> torch.nn.Module:
    return MODELS.build(dict(type=f"mmseg_m2f.{type}", **options))


def test_class_loss__weights_of_classes_and_of_no_object():
    logits = torch.zeros(1, 3, 3)  # probabilities of 1/3
    logits[0, 0, 0] = math.log(2.0)  # 1/2, 1/4, 1/4
    classes = torch.tensor([[0, 1, 2]])
    loss = build("ClassLoss", loss_weight=2.0, no_object_weight=0.5, class_weight=[3.0, 1.0])
    expected = (3 * math.log(2) + math.log(3) + 0.5 * math.log(3)) / (3 + 1 + 0.5)
    assert loss(logits, classes).item() == pytest.approx(2 * expected)


@pytest.mark.parametrize("weights", [["{'road':1.0", "'car':2.0}"], [None, 1.0], {"road": "1"}, [True, 1.0]])
def test_class_loss__weights_that_are_no_numbers(weights):
    with pytest.raises(ValueError, match=r"expected numbers as class_weight, a list or by name, got"):
        build("ClassLoss", class_weight=weights)


def test_class_loss__accumulated_batches_weigh_by_their_own_queries():
    """Two images: an object of class 0 and "no object"; objects of both classes. Losses are ln 2, ln 4, ln 2, ln 4."""
    logits = torch.tensor([math.log(2.0), 0.0, 0.0]).expand(1, 4, -1)  # probabilities 1/2, 1/4, 1/4
    classes = torch.tensor([[0, 2, 0, 1]])
    loss = build("ClassLoss", loss_weight=1.0, no_object_weight=0.5)
    together = loss(logits, classes).item()
    apart = (loss(logits[:, :2], classes[:, :2]) + loss(logits[:, 2:], classes[:, 2:])).item() / 2
    assert together == pytest.approx(math.log(2) * (1 + 0.5 * 2 + 1 + 2) / 3.5)
    assert apart == pytest.approx(math.log(2) * ((1 + 0.5 * 2) / 1.5 + (1 + 2) / 2) / 2)


@pytest.mark.parametrize("per_rank", [False, True])
def test_class_loss__of_two_ranks_is_that_of_one_with_all_images(monkeypatch, per_rank):
    """This rank has two queries of a class, the other one has two of "no object": weights 2 and 0.2."""
    logits, classes = torch.randn(1, 4, 3), torch.tensor([[0, 1, 2, 2]])
    loss = build("ClassLoss", no_object_weight=0.1, per_rank=per_rank)
    whole = loss(logits, classes)
    monkeypatch.setattr(criterion_losses.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(criterion_losses.dist, "all_reduce", lambda total, op: total.fill_((2 + 0.2) / 2))
    mean = (loss(logits[:, :2], classes[:, :2]) + loss(logits[:, 2:], classes[:, 2:])) / 2
    assert torch.allclose(mean, whole) is not per_rank


def test_class_loss__number_of_weights():
    loss = build("ClassLoss", class_weight=[1.0])
    with pytest.raises(ValueError, match=r"class_weight has 1 entries, but the head has 2 classes"):
        loss(torch.zeros(1, 3, 3), torch.zeros(1, 3, dtype=torch.long))


def test_mask_losses__by_hand():
    bce = (math.log(2) + math.log(4)) / 2
    dice = 1 - (2 * 0.5 + 1) / (0.5 + 0.75 + 1 + 1)
    focal = (0.25 * 0.5**2 * math.log(2) + 0.75 * 0.75**2 * math.log(4)) / 2
    for name, value in dict(MaskBCELoss=bce, MaskDiceLoss=dice, MaskFocalLoss=focal).items():
        assert build(name, loss_weight=3.0)(LOGITS, MASKS, ALL).item() == pytest.approx(3 * value, rel=1e-5)


@pytest.mark.parametrize("name", ["MaskBCELoss", "MaskDiceLoss", "MaskFocalLoss"])
def test_mask_losses__points_of_weight_0_change_nothing(name):
    loss = build(name)
    validity = torch.tensor([[1.0, 0.0]])
    first = loss(LOGITS, MASKS, validity)
    second = loss(LOGITS + torch.tensor([[0.0, 5.0]]), MASKS, validity)
    if name == "MaskDiceLoss":
        alone = loss(LOGITS[:, :1], MASKS[:, :1], ALL[:, :1])
        torch.testing.assert_close(first, alone)
    torch.testing.assert_close(first, second)


def test_box_losses__by_hand():
    first, second = torch.tensor([[0.25, 0.5, 0.5, 1.0]]), torch.tensor([[0.75, 0.5, 0.5, 1.0]])  # halves of the image
    assert build("BoxL1Loss", loss_weight=2.0)(first, second).item() == pytest.approx(1.0)
    assert build("BoxGIoULoss", loss_weight=2.0)(first, second).item() == pytest.approx(2.0)
    assert build("BoxGIoULoss")(first, first).item() == pytest.approx(0.0)


@pytest.mark.parametrize(("target", "expected"), [("matched", 0.36), ("all", (0.36 + 0.64 + 0.0) / 3)])
def test_query_orthogonality_loss__by_hand(target, expected):
    embeddings = torch.tensor([[[[2.0, 0.0], [0.6, 0.8], [0.0, 1.0]]]])
    matched = torch.tensor([[[True, True, False]]])
    loss = build("QueryOrthogonalityLoss", target=target)(embeddings, matched)
    assert loss.item() == pytest.approx(expected)


def test_query_orthogonality_loss__misspelt_target():
    with pytest.raises(ValueError, match="target must be 'matched' or 'all', got 'each'"):
        build("QueryOrthogonalityLoss", target="each")


def test_class_loss__no_query_costs_nothing():
    assert build("ClassLoss")(torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.long)).tolist() == [0, 0]


def test_class_focal_loss__is_a_sum_over_queries_and_classes():
    logits = torch.tensor([[[2.0, -1.0], [0.5, -3.0]], [[0.0, 0.0], [0.0, 0.0]]])
    classes = torch.tensor([[0, 2], [2, 2]])  # 2 is none
    loss = build("ClassFocalLoss", loss_weight=1.0)
    found = loss(logits, classes, torch.tensor(1.0))
    assert found.tolist() == pytest.approx([0.300585, 4 * 0.1299651], abs=1e-6)
    assert loss(logits, classes, torch.tensor(4.0)).tolist() == pytest.approx((found / 4).tolist())


def test_class_focal_loss__equals_mmdets():
    theirs = MODELS.build(dict(type="mmdet.FocalLoss", use_sigmoid=True, loss_weight=4.0, reduction="sum"))
    logits, classes = torch.randn(1, 50, 7) * 4, torch.randint(8, (1, 50))
    ours = build("ClassFocalLoss")(logits, classes, torch.tensor(3.0))
    torch.testing.assert_close(ours[0], theirs(logits[0], classes[0]) / 3)
