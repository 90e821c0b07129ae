import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

from mmseg_m2f.core.diversity import spatial_coverage
from tests.models.conftest import NUM_CLASSES, make_batch


def build(*in_channels: int, **arguments: object) -> torch.nn.Module:
    return MODELS.build(dict(type="mmseg_m2f.FeatureReconstruction", in_channels=in_channels, **arguments))


@pytest.mark.parametrize("gate_act", [None, "sigmoid"])
def test_reconstruction__equals_the_formula(gate_act):
    neck, x = build(8, gate_act=gate_act).eval(), torch.randn(2, 8, 5, 6)
    level = neck.levels[0]
    for norm in (level.intrinsic[1], level.diverse[1]):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)

    def batch_norm(y, norm):
        return F.batch_norm(y, norm.running_mean, norm.running_var)

    a = batch_norm(F.conv2d(x, level.intrinsic[0].weight), level.intrinsic[1])
    depthwise = level.diverse[0]
    b = batch_norm(F.conv2d(a, depthwise.weight, depthwise.bias, padding=1, groups=4), level.diverse[1])
    gate = level.gate[3].weight.flatten(1) @ (level.gate[1].weight.flatten(1) @ b.mean((2, 3)).T).relu()
    b = b * (gate.sigmoid() if gate_act else gate).T[..., None, None]
    fused = F.conv2d(torch.cat([b, a], 1), level.fuse.weight)
    expected = F.layer_norm(fused.movedim(1, -1), (8,)).movedim(-1, 1)
    ((rebuilt, diverse),) = neck.reconstruct([x])
    torch.testing.assert_close(rebuilt, expected)
    torch.testing.assert_close(diverse, b)
    assert torch.equal(neck([x])[0], rebuilt)


def test_reconstruction__coverage_of_random_weights():
    """A fresh module sees almost the same in all channels: the loss starts near its largest value."""
    for channels, size in ((192, 80), (384, 40), (768, 20)):
        ((_, diverse),) = build(channels).eval().reconstruct([torch.randn(1, channels, size, size)])
        assert 1.03 < spatial_coverage(diverse).item() < 1.10


def test_reconstruction__as_neck_before_a_head_of_mmseg():
    channels = [8, 16, 32, 64]
    model = MODELS.build(
        dict(
            type="mmseg.EncoderDecoder",
            backbone=dict(type="mmseg.ResNet", depth=18, base_channels=8, norm_cfg=dict(type="BN")),
            neck=dict(type="mmseg_m2f.FeatureReconstruction", in_channels=channels),
            decode_head=dict(
                type="mmseg.UPerHead",
                in_channels=channels,
                in_index=[0, 1, 2, 3],
                channels=8,
                num_classes=NUM_CLASSES,
                loss_decode=dict(type="mmseg.CrossEntropyLoss"),
            ),
        )
    )
    images, samples = make_batch()
    model.train().loss(images, samples)["decode.loss_ce"].backward()
    assert all(parameter.grad is not None for parameter in model.neck.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(in_channels=[8, 18]), r"expected multiples of 4, got \[8, 18\]. Put a neck"),
        (dict(in_channels=[8], gate_act="tanh"), r"gate_act must be 'sigmoid' or None, got 'tanh'"),
    ],
)
def test_reconstruction__wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type="mmseg_m2f.FeatureReconstruction", **arguments))
