import pytest
import torch

from mmseg_m2f.layers.transformer import Attention, EncoderLayer, attend_inside


def test_attention__equals_torch_multihead_attention():
    module = Attention(16, num_heads=4)
    query, key, value = torch.randn(2, 5, 16), torch.randn(2, 7, 16), torch.randn(2, 7, 16)
    may_attend = torch.rand(2, 5, 7) < 0.5
    may_attend[..., 0] = True
    blocked = ~may_attend.repeat_interleave(4, 0)
    expected, _ = module.attn(query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1), attn_mask=blocked)
    torch.testing.assert_close(module(query, key, value, may_attend), expected.transpose(0, 1))


def test_attention__channels_must_fit_the_heads():
    with pytest.raises(ValueError, match="channels 10 must be a multiple of num_heads 4"):
        Attention(10, num_heads=4)


def test_attend_inside__zero_is_inside():
    assert attend_inside(torch.tensor([[[-1.0, 0.0, 2.0]]])).tolist() == [[[False, True, True]]]


def test_attend_inside__blocked_row_is_reopened_alone():
    logits = torch.tensor([[[-1.0, -2.0], [1.0, -1.0]]])
    assert attend_inside(logits).tolist() == [[[True, True], [True, False]]]


def test_encoder_layer__token_order_changes_nothing():
    layer = EncoderLayer(16, num_heads=4, feedforward_channels=32, dropout=0.1).eval()
    tokens, position, order = torch.randn(1, 6, 16), torch.randn(6, 16), torch.randperm(6)
    expected = layer(tokens, position)[:, order]
    torch.testing.assert_close(layer(tokens[:, order], position[order]), expected)
