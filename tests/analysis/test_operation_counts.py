import torch
import torch.nn.functional as F
from torch import nn

from mmseg_m2f.analysis.operation_counts import count_multiply_adds, count_operations, without_gradients


def test_count_operations__products_by_hand() -> None:
    conv = nn.Conv2d(3, 8, 3, padding=1)
    linear = nn.Linear(16, 5)
    x = torch.rand(1, 3, 10, 12)

    def run() -> None:
        conv(x)
        linear(torch.rand(7, 16))
        torch.bmm(torch.rand(2, 3, 4), torch.rand(2, 4, 5))

    assert count_multiply_adds(run) == 3 * 8 * 9 * 10 * 12 + 7 * 16 * 5 + 2 * 3 * 4 * 5


def test_count_operations__attention() -> None:
    query, key = torch.rand(1, 2, 6, 4), torch.rand(1, 2, 9, 4)
    assert count_multiply_adds(lambda: F.scaled_dot_product_attention(query, key, key)) == 2 * (2 * 6 * 9 * 4)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.rand(1, 6, 8)
    assert count_multiply_adds(lambda: attention(x, x, x)) == 4 * 6 * 8 * 8 + 2 * 6 * 6 * 8


def test_count_operations__norms_and_resizing_are_counted_apart() -> None:
    x = torch.rand(1, 8, 4, 4)
    norms = nn.Sequential(nn.BatchNorm2d(8), nn.GroupNorm(2, 8)).eval()
    layer_norm = nn.LayerNorm(4)
    with count_operations() as counter:
        layer_norm(norms(x))
        F.interpolate(x, (6, 6), mode="bilinear")
    assert counter.products == 0
    assert counter.others == (2 + 5 + 5) * x.numel() + 4 * 8 * 6 * 6


def test_without_gradients__gives_them_back() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    with without_gradients(model):
        assert not model.weight.requires_grad
    assert model.weight.requires_grad
    assert not model.bias.requires_grad
