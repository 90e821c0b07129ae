import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch

from mmseg_m2f.compat import _StandInExtension

SHAPES = torch.tensor([[5, 7], [3, 4], [2, 2]])


def random_inputs() -> list[torch.Tensor]:
    """Value, locations (some outside), attention weights."""
    value = torch.randn(2, int(SHAPES.prod(1).sum()), 2, 8)
    weights = torch.randn(2, 9, 2, 3 * 4).softmax(-1).unflatten(-1, (3, 4))
    return [x.requires_grad_() for x in (value, torch.rand(2, 9, 2, 3, 4, 2) * 1.4 - 0.2, weights)]


@pytest.mark.parametrize("total", [1.0, 2.5])
def test_mmcv_operators__equal_mmcvs_own_pytorch(monkeypatch, total):
    monkeypatch.setattr("mmcv.ops.multi_scale_deform_attn.ext_module", _StandInExtension("mmcv._ext"))
    value, locations, weights = random_inputs()
    start = torch.cat([SHAPES.new_zeros(1), SHAPES.prod(1).cumsum(0)[:-1]])
    weights = (weights.detach() * total).requires_grad_()
    inputs = (value, locations, weights)
    expected = multi_scale_deformable_attn_pytorch(value, SHAPES, locations, weights)
    found = MultiScaleDeformableAttnFunction.apply(value, SHAPES, start, locations, weights, 64)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    for actual, reference in zip(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(actual, reference, rtol=1e-4, atol=1e-4)
