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


def test_mmcv_operators__take_bfloat16_forward_and_backward(monkeypatch):
    """mmcv's own have no bfloat16. Locations stay float32, as this package's models keep them."""
    monkeypatch.setattr("mmcv.ops.multi_scale_deform_attn.ext_module", _StandInExtension("mmcv._ext"))
    start = torch.cat([SHAPES.new_zeros(1), SHAPES.prod(1).cumsum(0)[:-1]])
    value, locations, weights = random_inputs()
    upstream = torch.randn(2, 9, 16)
    gradients, outputs = [], []
    for dtype in (torch.float32, torch.bfloat16):
        inputs = [x.detach().bfloat16().to(dtype).requires_grad_() for x in (value, locations, weights)]
        found = MultiScaleDeformableAttnFunction.apply(inputs[0], SHAPES, start, *inputs[1:], 64)
        assert found.dtype == dtype
        outputs.append(found.float())
        gradients.append(torch.autograd.grad(found, inputs, upstream.to(dtype)))
        assert [gradient.dtype for gradient in gradients[-1]] == [dtype] * 3
    torch.testing.assert_close(outputs[1], outputs[0], rtol=2e-2, atol=2e-2)
    for actual, reference in zip(gradients[1], gradients[0], strict=True):
        error = (actual.float() - reference).norm() / reference.norm()
        assert error < 2e-2
