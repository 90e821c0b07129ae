import pytest
import torch

from mmseg_m2f.models.losses import MaskBCELoss, MaskDiceLoss
from mmseg_m2f.models.losses.map_losses import Rows, map_losses
from mmseg_m2f.structures import MaskReadings

LOSSES = [MaskBCELoss(), MaskDiceLoss()]
MASKS = (torch.rand(5, 24) > 0.5).double()


def read(maps: torch.Tensor, rows: Rows) -> MaskReadings:
    logits = maps.flatten(1) * 2
    return MaskReadings(logits, MASKS[rows], torch.ones_like(logits))


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_map_losses__values_and_gradients_are_those_of_the_losses(chunk):
    maps = torch.randn(5, 4, 6, dtype=torch.float64, requires_grad=True)
    values = map_losses(maps, read, LOSSES, chunk=chunk)
    expected = torch.stack([loss(*read(maps, slice(None))) for loss in LOSSES])
    torch.testing.assert_close(values, expected)
    upstream = torch.randn(2, 5, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad(x, maps, upstream)[0] for x in (values, expected))
    torch.testing.assert_close(ours, theirs)


def test_map_losses__without_gradients_and_without_maps():
    assert map_losses(torch.randn(5, 4, 6).double(), read, LOSSES, chunk=2).grad_fn is None
    nothing = torch.zeros(0, 4, 6, requires_grad=True)
    values = map_losses(nothing, read, LOSSES, chunk=2)
    values.sum().backward()
    assert values.shape == (2, 0)
    assert nothing.grad is not None
