import numpy as np
import torch

from mmseg_m2f.core.losses import mask_bce_loss, mask_dice_loss, mask_focal_loss
from mmseg_m2f.core.matching import (
    class_cost,
    class_focal_cost,
    mask_bce_cost,
    mask_dice_cost,
    mask_focal_cost,
    mask_sums,
    solve_assignment,
)


def test_class_cost__minus_probability_of_the_segments_class():
    logits = torch.log(torch.tensor([[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]]))
    cost = class_cost(logits, torch.tensor([[1, 0]]))
    torch.testing.assert_close(cost, torch.tensor([[[-0.2, -0.7], [-0.1, -0.1]]]))


def of_sums(cost):
    """A cost that takes sums, of logits, masks and validity."""
    return lambda *readings: cost(mask_sums(*readings))


COSTS = (of_sums(mask_bce_cost), of_sums(mask_dice_cost), mask_focal_cost)


def random_points(num_queries: int, num_segments: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, masks and validity at 40 points, a third of them partly or fully void."""
    validity = torch.rand(1, 40).clamp(min=0.6).sub(0.6).div(0.4).where(torch.rand(1, 40) < 0.3, torch.ones(1, 40))
    masks = torch.rand(1, num_segments, 40) * validity
    return torch.randn(1, num_queries, 40) * 3, masks, validity


def test_mask_costs__equal_the_losses_of_each_pair():
    logits, masks, validity = random_points(3, 2)
    for cost, loss in zip(COSTS, (mask_bce_loss, mask_dice_loss, mask_focal_loss), strict=True):
        table = cost(logits, masks, validity)
        for query in range(3):
            expected = loss(logits[0, query].expand(2, -1), masks[0], validity.expand(2, -1))
            torch.testing.assert_close(table[0, query], expected)


def test_mask_costs__void_points_change_nothing():
    logits, masks, _ = random_points(3, 2)
    validity = (torch.arange(40) < 30).float().unsqueeze(0)
    masks = masks * validity
    for cost in COSTS:
        expected = cost(logits[..., :30], masks[..., :30], validity[..., :30])
        torch.testing.assert_close(cost(logits, masks, validity), expected)
        moved = logits.clone()
        moved[..., 30:] = 50.0
        torch.testing.assert_close(cost(moved, masks, validity), expected)


def test_mask_bce_cost__large_logits_stay_finite():
    logits = torch.full((1, 2, 12544), 1e4)
    cost = of_sums(mask_bce_cost)(logits, torch.zeros(1, 1, 12544), torch.ones(1, 12544))
    torch.testing.assert_close(cost, torch.full((1, 2, 1), 1e4), rtol=1e-5, atol=0)


def test_solve_assignment__cheapest_pairs():
    queries, segments = solve_assignment(np.array([[4.0, 1.0], [2.0, 3.0], [0.0, 9.0]]))
    assert (queries.tolist(), segments.tolist()) == ([0, 2], [1, 0])


def test_solve_assignment__more_segments_than_queries():
    queries, segments = solve_assignment(np.array([[4.0, 1.0, 3.0]]))
    assert (queries.tolist(), segments.tolist()) == ([0], [1])


def test_class_focal_cost__by_hand():
    """Published numbers at probabilities of 0.5, 0.9 and 0.1."""
    logits = torch.tensor([0.5, 0.9, 0.1]).logit().view(3, 1)
    found = class_focal_cost(logits, torch.tensor([0]))
    expected = torch.tensor([[-0.0866434], [-1.3985568], [0.4654833]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
