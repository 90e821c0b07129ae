import pytest
import torch
from mmcv.ops import CrissCrossAttention, MaskedConv2d, PSAMask, carafe
from mmcv.ops.carafe import carafe_naive
from torch import nn
from torch.nn import functional as F

from tests.layers.mmcv_operators import references


@pytest.mark.parametrize(("kernel", "groups", "scale"), [(3, 1, 2), (5, 2, 1), (3, 2, 3)])
def test_carafe__equals_a_loop_over_windows_with_gradients(kernel, groups, scale):
    features = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    masks = torch.randn(2, kernel**2 * groups, 3 * scale, 5 * scale, dtype=torch.float64, requires_grad=True)
    found = carafe(features, masks, kernel, groups, scale)
    expected = references.carafe(features, masks, kernel, groups, scale)
    torch.testing.assert_close(found, expected)
    assert torch.equal(carafe_naive(features, masks, kernel, groups, scale), found)
    upstream, leaves = torch.randn_like(expected), (features, masks)
    for actual, reference in zip(
        torch.autograd.grad(found, leaves, upstream), torch.autograd.grad(expected, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(actual, reference)


def test_carafe__gradient_check():
    features = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    masks = torch.randn(1, 9, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, m: carafe(x, m, 3, 1, 2), (features, masks))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_carafe__computes_half_precision_in_single(dtype):
    features, masks = torch.randn(1, 2, 2, 3).to(dtype), torch.randn(1, 9, 4, 6).to(dtype)
    assert torch.equal(carafe(features, masks, 3, 1, 2), carafe(features.float(), masks.float(), 3, 1, 2).to(dtype))


@pytest.mark.parametrize("chosen", [0.0, 0.4, 1.0])
def test_masked_conv2d__is_a_convolution_at_the_chosen_pixels(chosen):
    layer = MaskedConv2d(3, 4, (3, 5), padding=(1, 2))
    image, mask = torch.randn(1, 3, 6, 7), (torch.rand(1, 6, 7) < chosen).float()
    with torch.no_grad():
        torch.testing.assert_close(layer(image, mask), nn.Conv2d.forward(layer, image) * mask)


@pytest.mark.parametrize("psa_type", ["collect", "distribute"])
@pytest.mark.parametrize("mask_size", [(5, 3), (7, 9)])
def test_psa_mask__equals_a_loop_over_windows_with_gradient(mask_size, psa_type):
    windows = torch.randn(2, mask_size[0] * mask_size[1], 4, 5, dtype=torch.float64, requires_grad=True)
    found = PSAMask(psa_type, mask_size)(windows)
    expected = references.psa_mask(windows, mask_size, collect=psa_type == "collect")
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, windows, upstream), torch.autograd.grad(expected, windows, upstream)
    )


def test_criss_cross_attention__equals_attention_over_row_and_column():
    """mmcv computes it in PyTorch; a pixel attends to its row and its column, to itself once."""
    layer, x = CrissCrossAttention(16), torch.randn(1, 16, 3, 4)
    nn.init.constant_(layer.gamma.scale if hasattr(layer.gamma, "scale") else layer.gamma, 1.0)
    query, key, value = layer.query_conv(x)[0], layer.key_conv(x)[0], layer.value_conv(x)[0]
    found = layer(x)[0] - x[0]
    for y in range(3):
        for u in range(4):
            cells = [(row, u) for row in range(3) if row != y] + [(y, column) for column in range(4)]
            weights = F.softmax(torch.stack([query[:, y, u] @ key[:, r, c] for r, c in cells]), 0)
            expected = sum(weight * value[:, r, c] for weight, (r, c) in zip(weights, cells, strict=True))
            torch.testing.assert_close(found[:, y, u], expected, rtol=1e-4, atol=1e-5)
