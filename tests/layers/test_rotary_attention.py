import pytest
import torch
import torch.nn.functional as F

from mmseg_m2f.layers.rotary_attention import RotarySelfAttention, patch_rotations, rotate


def test_rotate__as_timm_does_for_dinov3():
    from timm.layers import RotaryEmbeddingDinoV3, apply_rot_embed_cat

    x = torch.randn(2, 3, 12, 16)
    expected = apply_rot_embed_cat(x, RotaryEmbeddingDinoV3(16).eval().get_embed((3, 4)), half=True)
    torch.testing.assert_close(rotate(x, patch_rotations((3, 4), 16, x)), expected, rtol=0, atol=1e-6)


def attention() -> RotarySelfAttention:
    return RotarySelfAttention(16, num_heads=2)


def test_rotary_self_attention__without_patches_apart_it_is_plain_attention():
    layer, tokens = attention(), torch.randn(2, 7, 16)
    expected = [
        linear(tokens).unflatten(-1, (2, 8)).transpose(1, 2) for linear in (layer.q_proj, layer.k_proj, layer.v_proj)
    ]
    one_patch = layer(tokens, (1, 1))  # it lies in the middle, where nothing is rotated
    expected = F.scaled_dot_product_attention(*expected).transpose(1, 2).flatten(2)
    torch.testing.assert_close(one_patch, layer.o_proj(expected))
    assert layer.k_proj.bias is None


def test_rotary_self_attention__only_patches_have_places():
    layer, tokens = attention(), torch.randn(1, 4 + 6, 16)
    order = torch.tensor([3, 1, 0, 2])
    moved = torch.cat([tokens[:, :4][:, order], tokens[:, 4:]], 1)
    expected, found = layer(tokens, (2, 3)), layer(moved, (2, 3))
    torch.testing.assert_close(found[:, :4], expected[:, :4][:, order])
    torch.testing.assert_close(found[:, 4:], expected[:, 4:])
    flipped = torch.cat([tokens[:, :4], tokens[:, 4:].flip(1)], 1)
    assert not torch.allclose(layer(flipped, (2, 3))[:, 4:].flip(1), expected[:, 4:], atol=1e-3)


def test_rotary_self_attention__where_a_token_may_attend():
    layer, tokens = attention(), torch.randn(1, 7, 16)
    may_attend = torch.eye(7, dtype=torch.bool).expand(1, 1, 7, 7)
    torch.testing.assert_close(layer(tokens, (2, 3), may_attend), layer.o_proj(layer.v_proj(tokens)))


def test_rotary_self_attention__heads_that_do_not_fit():
    with pytest.raises(ValueError, match="multiple of 4 · num_heads, got 3 heads"):
        RotarySelfAttention(16, num_heads=3)
