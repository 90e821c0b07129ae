from functools import partial

import pytest
import torch
import torchvision
from mmcv.ops import deform_conv2d, modulated_deform_conv2d
from torch.nn import functional as F

from mmseg_m2f.layers.mmcv_operators import deformable_convolution
from tests.layers.mmcv_operators import references

# stride, padding, dilation, groups, groups of channels with own offsets
SETTINGS = [(1, 1, 1, 1, 1), (2, 2, 2, 2, 2), (1, 0, 1, 2, 1), (1, 1, 1, 1, 2)]


def random_inputs(stride, padding, dilation, groups, offset_groups, kernel=(3, 2)):
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    weight = torch.randn(4, 4 // groups, *kernel, dtype=torch.float64)
    size = F.conv2d(x, weight, None, stride, padding, dilation, groups).shape[2:]
    offset = torch.randn(2, offset_groups * kernel[0] * kernel[1] * 2, *size, dtype=torch.float64) * 1.5
    mask = torch.rand(2, offset_groups * kernel[0] * kernel[1], *size, dtype=torch.float64)
    return [value.requires_grad_() for value in (x, offset, mask, weight, torch.randn(4, dtype=torch.float64))]


def assert_equal_with_gradients(found, expected, leaves):
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    grads = [torch.autograd.grad(value, leaves, upstream) for value in (found, expected)]
    for actual, reference in zip(*grads, strict=True):
        torch.testing.assert_close(actual, reference)


def options(setting, *, torchvision=False):
    """By name; torchvision reads both numbers of groups off the shapes."""
    names = (
        ("stride", "padding", "dilation")
        if torchvision
        else ("stride", "padding", "dilation", "groups", "offset_groups")
    )
    return dict(zip(names, setting, strict=False))


@pytest.mark.parametrize("setting", SETTINGS)
def test_deform_conv2d__equals_a_loop_over_taps_with_gradients(setting):
    x, offset, _, weight, _ = random_inputs(*setting)
    found = deform_conv2d(x, offset, weight, *setting)
    expected = references.deform_conv(x, offset, None, weight, **options(setting))
    assert_equal_with_gradients(found, expected, (x, offset, weight))


@pytest.mark.parametrize("setting", SETTINGS[:2])
def test_modulated_deform_conv2d__equals_a_loop_over_taps_with_gradients(setting):
    x, offset, mask, weight, bias = random_inputs(*setting)
    found = modulated_deform_conv2d(x, offset, mask, weight, bias, *setting)
    expected = references.deform_conv(x, offset, mask, weight, **options(setting)) + bias[:, None, None]
    assert_equal_with_gradients(found, expected, (x, offset, mask, weight, bias))


def test_modulated_deform_conv2d__steps_through_larger_maps_as_through_maps_of_the_output():
    """mmcv's kernel takes height and width of the output for those of offsets and mask. DyHead gives larger maps."""
    x, _, _, weight, bias = random_inputs(1, 1, 1, 1, 1)
    height, width = F.conv2d(x, weight, None, 1, 1).shape[2:]
    offset = torch.randn(2, 12, 2 * height, 2 * width, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 6, 2 * height, 2 * width, dtype=torch.float64, requires_grad=True)

    def found_in_memory(maps):
        cells = [
            [[maps[b].flatten()[(c * height + i) * width + j] for j in range(width)] for i in range(height)]
            for b in range(2)
            for c in range(maps.shape[1])
        ]
        rows = [torch.stack([torch.stack(row) for row in map_]) for map_ in cells]
        return torch.stack(rows).view(2, -1, height, width)

    found = modulated_deform_conv2d(x, offset, mask, weight, bias, 1, 1, 1, 1, 1)
    read = found_in_memory(offset), found_in_memory(mask)
    expected = references.deform_conv(x, *read, weight, **options((1, 1, 1, 1, 1))) + bias[:, None, None]
    assert_equal_with_gradients(found, expected, (x, offset, mask, weight, bias))
    with pytest.raises(ValueError, match=rf"for the {height} x {width} places of the output, got them for 2 x 2"):
        modulated_deform_conv2d(x, offset[..., :2, :2], mask[..., :2, :2], weight, bias, 1, 1, 1, 1, 1)


@pytest.mark.parametrize("setting", SETTINGS)
def test_deform_conv2d__torchvisions_is_taken_and_equal_with_gradients(with_torchvision, setting):
    x, offset, mask, weight, bias = leaves = random_inputs(*setting)
    reference = partial(torchvision.ops.deform_conv2d, x, offset, weight, **options(setting, torchvision=True))
    assert_equal_with_gradients(deform_conv2d(x, offset, weight, *setting), reference(), (x, offset, weight))
    assert_equal_with_gradients(modulated_deform_conv2d(*leaves, *setting), reference(mask=mask, bias=bias), leaves)
    calls = with_torchvision(deformable_convolution, "deform_conv2d")
    assert_equal_with_gradients(deform_conv2d(x, offset, weight, *setting), reference(), (x, offset, weight))
    assert_equal_with_gradients(modulated_deform_conv2d(*leaves, *setting), reference(mask=mask, bias=bias), leaves)
    assert len(calls) > 2  # the references call it too


def test_modulated_deform_conv2d__gradient_check():
    x, offset, mask, weight, bias = (value.detach() for value in random_inputs(1, 1, 1, 1, 1, kernel=(2, 2)))
    leaves = [value.requires_grad_() for value in (x[:1, :2, :3, :3], offset[:1], mask[:1], weight[:1, :2], bias[:1])]
    leaves[1] = leaves[1][..., :4, :4].detach().requires_grad_()
    leaves[2] = leaves[2][..., :4, :4].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda *args: modulated_deform_conv2d(*args, 1, 1, 1, 1, 1), leaves)


@pytest.mark.parametrize("setting", SETTINGS)
def test_deform_conv2d__without_offsets_is_a_convolution(setting):
    x, offset, _, weight, _ = random_inputs(*setting)
    expected = F.conv2d(x, weight, None, *setting[:4])
    torch.testing.assert_close(deform_conv2d(x, offset * 0, weight, *setting), expected)


def test_deform_conv2d__slope_at_whole_cells_is_that_to_the_right():
    """Offsets start at 0, where the bilinear reading has a kink."""
    x = torch.arange(9.0).view(1, 1, 3, 3) ** 2
    offset = torch.zeros(1, 2, 3, 3, requires_grad=True)
    deform_conv2d(x, offset, torch.ones(1, 1, 1, 1)).sum().backward()
    assert offset.grad[0, 1, 1].tolist() == [7.0, 9.0, -25.0]  # 16 - 9, 25 - 16, 0 - 25


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_deform_conv2d__computes_half_precision_in_single(dtype):
    x, offset, mask, weight, bias = (value.detach().to(dtype) for value in random_inputs(1, 1, 1, 1, 1))
    found = modulated_deform_conv2d(x, offset, mask, weight, bias, 1, 1)
    single = (value.float() for value in (x, offset, mask, weight, bias))
    assert found.dtype == dtype
    assert torch.equal(found, modulated_deform_conv2d(*single, 1, 1).to(dtype))


def test_deform_conv2d__far_and_infinite_offsets_read_nothing():
    x, offset, _, weight, _ = random_inputs(1, 1, 1, 1, 1)
    far = deform_conv2d(x, offset + 1e9, weight, 1, 1)
    assert far.count_nonzero() == 0
    assert torch.isfinite(deform_conv2d(x, torch.full_like(offset, -1e30), weight, 1, 1)).all()
