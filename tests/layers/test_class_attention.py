"""Class tokens, attention to classes and their update against the formulas."""

import pytest
import torch
import torch.nn.functional as F

from mmseg_m2f.layers.class_attention import ClassAttention, ClassTokens, ClassUpdater, class_grid_size

CHANNELS, HEADS, NUM_CLASSES = 8, 2, 5


@pytest.mark.parametrize(("num_classes", "length"), [(19, 75), (59, 99), (60, 99), (150, 219), (171, 219)])
def test_class_tokens__length_of_the_pooled_masks(num_classes, length):
    assert ClassTokens(CHANNELS, num_classes=num_classes).embed.in_features == length


def test_class_grid_size__odd():
    assert [class_grid_size(k) for k in (1, 4, 8, 9, 16, 150)] == [1, 3, 3, 3, 5, 13]


def test_class_tokens__pools_each_mask_and_repeats_small_ones():
    tokens = ClassTokens(CHANNELS, num_classes=4, pool_sizes=(1, 2))  # and 3
    masks = torch.arange(4.0).view(1, 1, 2, 2)
    upper, lower = [0.0, 0.5, 1.0], [2.0, 2.5, 3.0]  # cells of three overlap in a map of two
    grids = [1.5, 0.0, 1.0, 2.0, 3.0, *upper, *[(a + b) / 2 for a, b in zip(upper, lower, strict=True)], *lower]
    torch.testing.assert_close(tokens(masks)[0, 0], tokens.embed(torch.tensor(grids)))


def heads_of(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return x.chunk(HEADS, -1)


@pytest.mark.parametrize("attn_sign", [-1, 1])
def test_class_attention__equals_the_formula(attn_sign):
    layer = ClassAttention(CHANNELS, num_heads=HEADS, attn_sign=attn_sign)
    x, classes = torch.randn(2, CHANNELS, 3, 4), torch.randn(2, NUM_CLASSES, CHANNELS)
    out, scores = layer(x, classes)
    normed = F.layer_norm(x.movedim(1, -1), (CHANNELS,)).movedim(-1, 1)
    depthwise, pointwise = layer.q[0], layer.q[2]
    q = F.conv2d(normed, depthwise.weight, depthwise.bias, padding=1, groups=CHANNELS)
    q = F.conv2d(q, pointwise.weight, pointwise.bias).flatten(2).transpose(1, 2)  # B N C
    keys, values = (F.layer_norm(classes, (CHANNELS,)) @ layer.kv.weight.T).chunk(2, -1)
    mean_scores, seen = 0, []
    for query, key, value in zip(heads_of(q), heads_of(keys), heads_of(values), strict=True):
        s = query @ key.transpose(1, 2) / (CHANNELS // HEADS) ** 0.5  # B N K
        # As released: the largest score of a pixel minus each.
        weights = ((s.amax(-1, keepdim=True) - s) if attn_sign == -1 else s).softmax(-1)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 12))
        mean_scores = mean_scores + s / HEADS
        seen.append(weights @ value)
    y = x + layer.out(torch.cat(seen, -1).transpose(1, 2).unflatten(-1, (3, 4)))
    expected = y + layer.ffn(F.layer_norm(y.movedim(1, -1), (CHANNELS,)).movedim(-1, 1))
    torch.testing.assert_close(scores.flatten(2), mean_scores.transpose(1, 2))
    torch.testing.assert_close(out, expected)


def test_class_attention__order_of_classes():
    layer, x = ClassAttention(CHANNELS, num_heads=HEADS), torch.randn(1, CHANNELS, 3, 4)
    classes, order = torch.randn(1, NUM_CLASSES, CHANNELS), torch.randperm(NUM_CLASSES)
    out, scores = layer(x, classes)
    other_out, other_scores = layer(x, classes[:, order])
    torch.testing.assert_close(other_out, out)
    torch.testing.assert_close(other_scores, scores[:, order])


def test_class_attention__scores_in_float32_under_autocast():
    layer = ClassAttention(CHANNELS, num_heads=HEADS)
    with torch.autocast("cpu", torch.bfloat16):
        _, scores = layer(torch.randn(1, CHANNELS, 3, 4), torch.randn(1, NUM_CLASSES, CHANNELS))
    assert scores.dtype == torch.float32


def test_class_attention__heads_that_do_not_divide():
    with pytest.raises(ValueError, match=r"channels 8 must be a multiple of num_heads 3"):
        ClassAttention(CHANNELS, num_heads=3)


def test_class_updater__equals_the_formula():
    update = ClassUpdater(CHANNELS)
    news, classes = torch.randn(2, NUM_CLASSES, CHANNELS), torch.randn(2, NUM_CLASSES, CHANNELS)
    compared, added = F.linear(news, update.news.weight, update.news.bias).chunk(2, -1)
    u = F.linear(classes, update.classes.weight, update.classes.bias) * compared
    gate = F.layer_norm(F.linear(u, update.gate[0].weight, update.gate[0].bias), (CHANNELS,)).sigmoid()
    mixed = F.linear(gate * F.layer_norm(added, (CHANNELS,)) + classes, update.out[0].weight, update.out[0].bias)
    torch.testing.assert_close(update(news, classes), F.layer_norm(mixed, (CHANNELS,)).relu())
