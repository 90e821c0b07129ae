import pytest
import torch

from mmseg_m2f.core.boxes import generalized_iou, inverse_sigmoid, to_centres, to_corners
from mmseg_m2f.core.losses import box_giou_loss, box_l1_loss
from mmseg_m2f.core.matching import box_giou_cost, box_l1_cost, class_cost

PREDICTED, TRUE = torch.tensor([[0.3, 0.3, 0.4, 0.4]]), torch.tensor([[0.5, 0.6, 0.4, 0.6]])


def test_boxes__forms():
    corners = to_corners(TRUE)
    torch.testing.assert_close(corners, torch.tensor([[0.3, 0.3, 0.7, 0.9]]))
    torch.testing.assert_close(to_centres(corners), TRUE)


def test_generalized_iou__by_hand():
    assert generalized_iou(to_corners(PREDICTED), to_corners(TRUE)).item() == pytest.approx(-0.1388889, abs=1e-6)


def test_generalized_iou__same_box_and_far_boxes():
    a, b = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[9.0, 0.0, 10.0, 1.0]])
    assert generalized_iou(a, a).item() == 1.0
    assert generalized_iou(a, b).item() == pytest.approx(-0.8)  # 8 of the 10 enclosed units belong to neither


def test_generalized_iou__empty_boxes_are_finite_with_a_gradient():
    boxes = torch.zeros(1, 4, requires_grad=True)
    value = generalized_iou(boxes, torch.zeros(1, 4))
    value.sum().backward()
    assert value.item() == 0.0
    assert boxes.grad.isfinite().all()


def test_box_costs__weighted_sum_by_hand():
    logits = torch.tensor([[2.0, 0.0, 1.0]])
    cost = class_cost(logits, torch.tensor([0])) + 5 * box_l1_cost(PREDICTED, TRUE) + 2 * box_giou_cost(PREDICTED, TRUE)
    assert cost.item() == pytest.approx(3.1125372, abs=1e-5)


def test_box_costs__every_pair():
    a, b = torch.rand(2, 3, 4), torch.rand(2, 5, 4)
    costs = box_giou_cost(a, b)
    assert costs.shape == box_l1_cost(a, b).shape == (2, 3, 5)
    torch.testing.assert_close(costs[1, 2, 4], box_giou_loss(a[1, 2:3], b[1, 4:5])[0] - 1)


def test_box_losses__by_hand():
    assert 5 * box_l1_loss(PREDICTED, TRUE).item() == pytest.approx(3.5, abs=1e-6)
    assert 2 * box_giou_loss(PREDICTED, TRUE).item() == pytest.approx(2.2777779, abs=1e-6)


def test_inverse_sigmoid__ends_are_cut():
    found = inverse_sigmoid(torch.tensor([-1.0, 0.0, 0.25, 0.5, 1.0, 2.0]))
    torch.testing.assert_close(found, torch.tensor([-11.5129, -11.5129, -1.09861, 0.0, 11.5129, 11.5129]))
