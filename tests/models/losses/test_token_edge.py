import math

import pytest
import torch

from mmseg_m2f.models.backbones.partial_maps import PartialMaps
from mmseg_m2f.models.losses.token_edge import TokenEdgeLoss, edge_cells
from mmseg_m2f.structures import BACKGROUND, VOID, MaskTarget


def features(edge_logits: torch.Tensor, patch_size: int = 2) -> PartialMaps:
    return PartialMaps((torch.zeros(len(edge_logits), 1, *edge_logits.shape[1:]),), (None,), edge_logits, patch_size)


def test_edge_cells__two_segments_or_background():
    segment_map = torch.tensor(
        [
            [0, 0, 0, 1, VOID],
            [0, 0, 0, 0, VOID],
            [2, VOID, VOID, VOID, 1],
            [2, BACKGROUND, VOID, 3, VOID],
            [1, 1, VOID, VOID, 0],
        ]
    )
    is_edge, is_valid = edge_cells(segment_map.unsqueeze(0), 2)
    assert is_edge[0].tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    assert is_valid[0].tolist() == [[True, True, False], [True, True, True], [True, False, True]]


def test_token_edge_loss__edges_weigh_as_much_as_the_rest():
    # One edge of 4 cells, one of void: the weight of the edge is 2.
    segment_map = torch.tensor([[[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, VOID, VOID], [0, 0, VOID, VOID]]])
    logits = torch.tensor([[[1.0, -2.0], [0.5, 7.0]]], requires_grad=True)
    losses = TokenEdgeLoss(loss_weight=3.0)(features(logits), [MaskTarget(torch.tensor([0, 1]), segment_map)])
    terms = [2 * math.log1p(math.exp(-1.0)), math.log1p(math.exp(-2.0)), math.log1p(math.exp(0.5))]
    assert losses["loss_edge"].item() == pytest.approx(3 * sum(terms) / 3)
    losses["loss_edge"].backward()
    assert logits.grad[0, 1, 1] == 0


def test_token_edge_loss__ten_times_at_most():
    segment_map = torch.zeros(1, 10, 10, dtype=torch.long)
    segment_map[0, 0, 0] = 1
    target = MaskTarget(torch.tensor([0, 1]), segment_map)
    loss = TokenEdgeLoss()(features(torch.zeros(1, 5, 5)), [target])["loss_edge"]
    assert loss.item() == pytest.approx((10 + 24) * math.log(2) / 25)


def test_token_edge_loss__nothing_but_void():
    logits = torch.randn(1, 2, 2, requires_grad=True)
    target = MaskTarget(torch.tensor([], dtype=torch.long), torch.full((1, 4, 4), VOID))
    loss = TokenEdgeLoss()(features(logits), [target])["loss_edge"]
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_token_edge_loss__backbone_that_looks_for_no_edges():
    target = MaskTarget(torch.tensor([0]), torch.zeros(1, 4, 4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"Set backbone.shrink.sampler='edge', or take the loss out"):
        TokenEdgeLoss()([torch.zeros(1, 3, 2, 2)], [target])
