import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from mmseg_m2f.benchmark.heads.costs import count_multiply_adds


@pytest.mark.parametrize("masked", [False, True])
def test_multiply_adds__of_attention(masked):
    query, key, value = torch.rand(2, 3, 5, 8), torch.rand(2, 3, 7, 8), torch.rand(2, 3, 7, 8)
    may_attend = torch.rand(2, 1, 5, 7) > 0.3 if masked else None
    counted = count_multiply_adds(lambda: scaled_dot_product_attention(query, key, value, attn_mask=may_attend))
    assert counted == 2 * 3 * 5 * 7 * 8 * 2  # images, heads, queries, keys, channels; logits and sums


@pytest.mark.parametrize("batch_first", [False, True])  # torch has a fused kernel for the latter
def test_multiply_adds__of_a_module(batch_first):
    module = nn.MultiheadAttention(16, 2, batch_first=batch_first).eval().requires_grad_(False)
    tokens = torch.rand(4, 4, 16)
    counted = count_multiply_adds(lambda: module(tokens, tokens, tokens))
    assert counted == 4 * 4 * 16 * 16 * 4 + 4 * 4 * 4 * 16 * 2  # four projections; logits and sums
    assert torch.backends.mha.get_fastpath_enabled()
