import pytest
import torch
from torch import nn

from mmseg_m2f.models.feature_spec import probe_feature_spec
from mmseg_m2f.structures import FeatureSpec


class Pyramid(nn.Module):
    """Two maps of strides 2 and 4, from as many channels as one likes."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.fine = nn.Conv2d(in_channels, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.coarse = nn.Conv2d(4, 8, 3, stride=2, padding=1)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        fine = self.drop(self.norm(self.fine(images)))
        return [fine, self.coarse(fine)]


@pytest.mark.parametrize("in_channels", [1, 3, 5])
def test_probe_feature_spec__channels_and_strides(in_channels):
    backbone = Pyramid(in_channels)
    assert probe_feature_spec(backbone, backbone) == FeatureSpec((4, 8), (2, 4))


def test_probe_feature_spec__leaves_no_trace():
    backbone = Pyramid().train()
    backbone.drop.eval()
    statistics, random_state = backbone.norm.running_mean.clone(), torch.get_rng_state()
    probe_feature_spec(backbone, backbone)
    assert torch.equal(backbone.norm.running_mean, statistics)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert backbone.norm.training
    assert not backbone.drop.training


def test_probe_feature_spec__not_a_list_of_maps():
    backbone = Pyramid()
    with pytest.raises(TypeError, match="expected a list of maps .* got Tensor.*out_indices"):
        probe_feature_spec(backbone, lambda images: backbone(images)[0])


def test_probe_feature_spec__coarse_to_fine_is_refused():
    backbone = Pyramid()
    with pytest.raises(TypeError, match=r"got strides \(4, 2\)"):
        probe_feature_spec(backbone, lambda images: backbone(images)[::-1])
