import torch

from mmseg_m2f.layers.mmcv_operators.weighted_rows import pixel_table, weighted_rows


def test_weighted_rows__equal_a_product_with_gradients():
    table, weights = torch.randn(6, 3, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    rows = torch.randint(0, 6, (4, 2))
    expected = torch.einsum("nkc,nk->nc", table[rows], weights)
    torch.testing.assert_close(weighted_rows(table, rows, weights), expected)
    leaves = (table.requires_grad_(), weights.requires_grad_())
    assert torch.autograd.gradcheck(lambda t, w: weighted_rows(t, rows, w), leaves)


def test_weighted_rows__of_nothing_have_a_gradient():
    table = torch.randn(6, 3, requires_grad=True)
    empty = weighted_rows(table, torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, 2))
    assert empty.shape == (0, 3)
    assert torch.autograd.grad(empty.sum(), table)[0].count_nonzero() == 0


def test_pixel_table__has_a_row_per_pixel_and_no_half_precision():
    features = torch.randn(2, 3, 4, 5, dtype=torch.bfloat16)
    table = pixel_table(features)
    assert table.dtype == torch.float32
    assert torch.equal(table.view(2, 4, 5, 3)[1, 2, 3], features[1, :, 2, 3].float())
