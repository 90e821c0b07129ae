import pytest
import torch
from torch import nn

from mmseg_m2f.layers.scoring_attention import AttentionToMaskLayer, ScoringAttention, init_linears

CHANNELS, HEADS = 24, 4


def reference_layer(layer: AttentionToMaskLayer) -> nn.TransformerDecoderLayer:
    """torch's own post-norm layer with the same weights."""
    reference = nn.TransformerDecoderLayer(CHANNELS, HEADS, 4 * CHANNELS, dropout=0.0, batch_first=True)
    cross = layer.cross_attn
    state = {f"self_attn.{name}": value for name, value in layer.self_attn.attn.state_dict().items()}
    state |= {
        "multihead_attn.in_proj_weight": torch.cat([cross.q.weight, cross.k.weight, cross.v.weight]),
        "multihead_attn.in_proj_bias": torch.cat([cross.q.bias, cross.k.bias, cross.v.bias]),
    }
    linears = {"multihead_attn.out_proj": cross.out, "linear1": layer.ffn.layers[0][0], "linear2": layer.ffn.layers[1]}
    linears |= {f"norm{index + 1}": norm for index, norm in enumerate(layer.norms)}
    for name, module in linears.items():
        state |= {f"{name}.{part}": value for part, value in module.state_dict().items()}
    reference.load_state_dict(state)
    return reference


def test_scores__mean_over_the_heads_before_the_softmax():
    attention = ScoringAttention(CHANNELS, num_heads=HEADS, dropout=0.1)
    queries, tokens = torch.randn(2, 5, CHANNELS), torch.randn(2, 7, CHANNELS)
    _, scores = attention(queries, tokens)
    per_head = [
        q @ k.transpose(1, 2) / (CHANNELS / HEADS) ** 0.5
        for q, k in zip(attention.q(queries).chunk(HEADS, -1), attention.k(tokens).chunk(HEADS, -1), strict=True)
    ]
    product = torch.einsum("bqc,bnc->bqn", scores.embeddings, scores.keys)
    torch.testing.assert_close(product, torch.stack(per_head).mean(0))


def test_attention_to_mask_layer__is_torch_s_post_norm_layer():
    layer = AttentionToMaskLayer(CHANNELS, num_heads=HEADS, dropout=0.1).eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    queries, tokens = torch.randn(2, 5, CHANNELS), torch.randn(2, 7, CHANNELS)
    torch.testing.assert_close(layer(queries, tokens)[0], reference_layer(layer)(queries, tokens))


def test_attention_to_mask_layer__dropout_in_training_alone():
    layer = AttentionToMaskLayer(CHANNELS, num_heads=HEADS, dropout=0.5)
    queries, tokens = torch.randn(1, 5, CHANNELS), torch.randn(1, 7, CHANNELS)
    assert (layer(queries, tokens)[0] != layer(queries, tokens)[0]).any()
    layer.eval()
    assert torch.equal(layer(queries, tokens)[0], layer(queries, tokens)[0])


def test_scores__float32_under_autocast():
    attention = ScoringAttention(CHANNELS, num_heads=HEADS, dropout=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        attended, scores = attention(torch.randn(1, 5, CHANNELS), torch.randn(1, 7, CHANNELS))
    assert attended.dtype == torch.bfloat16
    assert scores.embeddings.dtype == scores.keys.dtype == torch.float32


def test_scoring_attention__heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="channels 24 must be a multiple of num_heads 5"):
        ScoringAttention(CHANNELS, num_heads=5, dropout=0.0)


def test_init_linears__joint_projections_keep_theirs():
    layer = AttentionToMaskLayer(256, num_heads=HEADS, dropout=0.0)
    joint = layer.self_attn.attn.in_proj_weight.clone()
    init_linears(layer)
    assert torch.equal(layer.self_attn.attn.in_proj_weight, joint)
    for linear in (layer.self_attn.attn.out_proj, layer.cross_attn.k, layer.ffn.layers[1]):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert not linear.bias.any()
