import pytest
import torch

from mmseg_m2f.core.targets import stack_targets
from mmseg_m2f.models.sampling import FullMaskSampling, PointSampling
from mmseg_m2f.structures import BACKGROUND, MaskTarget
from tests.models.sampling.samples import prediction_of, quarters


def test_point_sampling__published_numbers():
    sampling = PointSampling()
    assert (sampling.num_points, sampling.num_candidates, sampling.num_uncertain) == (12544, 37632, 9408)


@pytest.mark.parametrize("wrong", [dict(importance=1.5), dict(importance=-0.1), dict(oversample=0.5)])
def test_point_sampling__more_uncertain_points_than_candidates(wrong):
    with pytest.raises(ValueError, match="expected importance in"):
        PointSampling(**wrong)


def test_point_sampling__matching_shares_the_points_of_an_image():
    logits = torch.stack([(quarters().segment_maps[0, 0] == segment).float() for segment in (0, 1)])
    readings = PointSampling(500).for_matching([prediction_of(logits)], quarters(), slice(0, 1))
    torch.testing.assert_close(readings.logits, readings.masks, rtol=0, atol=1e-5)
    assert readings.validity.mean().item() == pytest.approx(0.75, abs=0.06)


def test_point_sampling__losses_read_mostly_uncertain_valid_points():
    row = torch.linspace(-8, 8, 16).expand(1, 16, -1)  # zero in the middle column
    readings = PointSampling(400).for_loss(row, quarters(), torch.tensor([0]), torch.tensor([0]))
    assert readings.logits.shape == (1, 400)
    assert (readings.logits.abs() < 2.5).float().mean() > 0.75
    assert readings.validity[:, :300].min() > 0.2  # void was avoided where it could be


@pytest.mark.parametrize("sampling", [PointSampling(64), FullMaskSampling()])
def test_sampling__no_pair_and_no_segment(sampling):
    none = torch.zeros(0, dtype=torch.long)
    assert len(sampling.for_loss(torch.zeros(0, 4, 4), quarters(), none, none).logits) == 0
    empty = stack_targets([MaskTarget(none, torch.full((1, 16, 16), BACKGROUND))])
    assert sampling.for_matching([prediction_of(torch.randn(3, 4, 4))], empty, slice(0, 1)).masks.shape[:3] == (1, 1, 0)
