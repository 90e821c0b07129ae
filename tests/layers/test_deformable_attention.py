import math

import pytest
import torch

from mmseg_m2f.layers.deformable_attention import (
    DeformableAttention,
    deformable_attention,
    deformable_attention_in_pytorch,
)

IMPLEMENTATIONS = [deformable_attention, deformable_attention_in_pytorch]


@pytest.mark.parametrize("attend", IMPLEMENTATIONS)
def test_deformable_attention__reads_a_cell_at_its_centre(attend):
    sizes = [(1, 2), (2, 2)]
    value = torch.arange(6.0).view(1, 6, 1, 1)
    # From the middle to the right cell of the first level and to the lower left one of the second.
    offsets = torch.tensor([[0.5, 0.0], [-0.5, 0.5]]).view(1, 1, 1, 2, 1, 2)
    logits = torch.tensor([0.25, 0.75]).log().view(1, 1, 1, 2)
    found = attend(value, sizes, torch.tensor([[0.5, 0.5]]), offsets, logits)
    assert found.item() == pytest.approx(0.25 * 1 + 0.75 * 4)


@pytest.mark.parametrize("attend", IMPLEMENTATIONS)
def test_deformable_attention__equals_a_loop_over_everything(attend):
    torch.manual_seed(1)
    sizes, heads, points, channels = [(2, 3), (5, 4)], 2, 3, 4
    tokens = sum(h * w for h, w in sizes)
    value = torch.randn(2, tokens, heads, channels, dtype=torch.float64)
    reference = torch.rand(7, 2, dtype=torch.float64)
    offsets = torch.randn(2, 7, heads, 2, points, 2, dtype=torch.float64) * 2
    logits = torch.randn(2, 7, heads, 2 * points, dtype=torch.float64)
    weights = logits.softmax(-1).unflatten(-1, (2, points))
    expected = torch.zeros(2, 7, heads, channels, dtype=torch.float64)
    for b in range(2):
        for q in range(7):
            for m in range(heads):
                start = 0
                for level, (height, width) in enumerate(sizes):
                    grid = value[b, start : start + height * width, m].view(height, width, channels)
                    start += height * width
                    for p in range(points):
                        x, y = (reference[q] + offsets[b, q, m, level, p] / torch.tensor([width, height])).tolist()
                        expected[b, q, m] += weights[b, q, m, level, p] * _bilinear(grid, x, y)
    actual = attend(value, sizes, reference, offsets, logits)
    torch.testing.assert_close(actual, expected.flatten(2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("attend", IMPLEMENTATIONS)
def test_deformable_attention__half_precision_is_rounded_at_the_ends_alone(attend):
    """In bfloat16 itself, places in a map 300 wide would be half a cell off, and 301 is no bfloat16 at all."""
    sizes = [(2, 301)]
    value = torch.randn(1, 602, 2, 8).bfloat16().requires_grad_()
    offsets = torch.randn(1, 602, 2, 1, 3, 2).bfloat16().requires_grad_()
    logits = torch.randn(1, 602, 2, 3).bfloat16().requires_grad_()
    reference = torch.rand(602, 2)
    exact = [x.detach().float().requires_grad_() for x in (value, offsets, logits)]
    actual = attend(value, sizes, reference, offsets, logits)
    expected = attend(exact[0], sizes, reference, exact[1], exact[2])
    assert torch.equal(actual, expected.bfloat16())
    upstream = torch.randn_like(actual)
    actual.backward(upstream)
    expected.backward(upstream.float())
    for x, y in zip((value, offsets, logits), exact, strict=True):
        assert torch.equal(x.grad, y.grad.bfloat16())


def _bilinear(grid: torch.Tensor, x: float, y: float) -> torch.Tensor:
    height, width, _ = grid.shape
    px, py = x * width - 0.5, y * height - 0.5
    total = torch.zeros_like(grid[0, 0])
    for row in (math.floor(py), math.floor(py) + 1):
        for column in (math.floor(px), math.floor(px) + 1):
            if 0 <= row < height and 0 <= column < width:
                total += (1 - abs(py - row)) * (1 - abs(px - column)) * grid[row, column]
    return total


def test_deformable_attention_module__starts_as_a_ring():
    offsets = DeformableAttention(16, num_levels=2, num_heads=8).sampling_offsets
    ring = offsets.bias.view(8, 2, 4, 2)
    directions = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for head, direction in enumerate(directions):
        for point in range(4):
            expected = torch.tensor(direction, dtype=torch.float32) * (point + 1)
            torch.testing.assert_close(ring[head, 1, point], expected, rtol=0, atol=1e-5)
    assert not offsets.weight.any()


def test_deformable_attention_module__channels_must_fit_the_heads():
    with pytest.raises(ValueError, match="channels 10 must be a multiple of num_heads 8"):
        DeformableAttention(10, num_levels=1)


@pytest.mark.parametrize("kernels", ["on", "off"])
def test_deformable_attention__values_of_another_length_and_width(monkeypatch, kernels):
    monkeypatch.setenv("MMSEG_M2F_KERNELS", kernels)
    attention = DeformableAttention(16, num_levels=2, num_heads=2, inner_channels=8)
    query, value, sizes = torch.randn(2, 5, 16), torch.randn(2, 18, 16), [(3, 4), (2, 3)]
    reference = torch.rand(5, 2)
    expected = deformable_attention_in_pytorch(
        attention.value_proj(value).unflatten(-1, (2, 4)),
        sizes,
        reference,
        attention.sampling_offsets(query).unflatten(-1, (2, 2, 4, 2)),
        attention.attention_weights(query).unflatten(-1, (2, 8)),
    )
    torch.testing.assert_close(attention(query, value, reference, sizes), attention.output_proj(expected))


def test_deformable_attention__inner_width_is_the_outer_one_unless_given():
    plain, explicit = DeformableAttention(16, num_levels=1), DeformableAttention(16, num_levels=1, inner_channels=16)
    explicit.load_state_dict(plain.state_dict())
    x, points = torch.randn(1, 6, 16), torch.rand(6, 2)
    assert torch.equal(explicit(x, x, points, [(2, 3)]), plain(x, x, points, [(2, 3)]))


@pytest.mark.parametrize("kernels", ["on", "off"])
def test_deformable_attention__offsets_in_boxes_are_parts_of_their_sides(monkeypatch, kernels):
    monkeypatch.setenv("MMSEG_M2F_KERNELS", kernels)
    attention = DeformableAttention(16, num_levels=2, num_heads=2, num_points=4)
    query, value, sizes = torch.randn(2, 5, 16), torch.randn(2, 18, 16), [(3, 4), (2, 3)]
    boxes = (torch.rand(2, 5, 4) * 0.4 + 0.2).requires_grad_()
    offsets = attention.sampling_offsets(query).unflatten(-1, (2, 2, 4, 2))
    places = boxes[:, :, None, None, None, :2] + offsets * boxes[:, :, None, None, None, 2:] / 8
    values = attention.value_proj(value).unflatten(-1, (2, 8)).split([12, 6], 1)
    weights = attention.attention_weights(query).unflatten(-1, (2, 8)).softmax(-1).unflatten(-1, (2, 4))
    total = torch.zeros(2, 5, 2, 8)
    for level, (size, of_level) in enumerate(zip(sizes, values, strict=True)):
        for head in range(2):
            maps = of_level[:, :, head].mT.unflatten(-1, size)
            grid = 2 * places[:, :, head, level] - 1
            read = torch.nn.functional.grid_sample(maps, grid, align_corners=False)  # B D Nq P
            total[:, :, head] += torch.einsum("bdqp,bqp->bqd", read, weights[:, :, head, level])
    expected = attention.output_proj(total.flatten(2))
    actual = attention(query, value, boxes, sizes)
    torch.testing.assert_close(actual, expected)
    found, wanted = (torch.autograd.grad(x.square().sum(), boxes, retain_graph=True)[0] for x in (actual, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
