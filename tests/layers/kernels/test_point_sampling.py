import pytest
import torch

from mmseg_m2f.core import points as core_points
from mmseg_m2f.core.targets import frame, is_valid, read_paired_segments
from mmseg_m2f.layers.kernels import point_sampling
from mmseg_m2f.structures import CROWD

MAPS = torch.randn(6, 9, 13)
IMAGES = torch.tensor([0, 0, 1, 1, 1, 0])
SEGMENTS = torch.tensor([0, 3, 1, 2, 0, 1])
LABELS = torch.tensor([2, 0, 1, 1, 2, 0])

pytestmark = pytest.mark.skipif(not point_sampling.is_available(MAPS), reason="no compiler")


def framed(slices: int = 1) -> torch.Tensor:
    """Segments, background, void and crowds of the classes 0 and 1 anywhere."""
    return frame(torch.randint(CROWD - 1, 4, (2, slices, 17, 21)))


def test_pick_uncertain__keeps_what_the_definition_keeps():
    candidates, maps = torch.rand(6, 300, 2), framed()
    options = dict(framed_maps=maps, images=IMAGES, labels=LABELS)
    kept = point_sampling.pick_uncertain(MAPS, candidates, 90, **options)
    logits = core_points.sample_points(MAPS.unsqueeze(1), candidates).squeeze(1)
    usable = is_valid(maps, candidates, IMAGES, LABELS)
    expected = core_points.pick_uncertain(logits, candidates, 90, usable=usable)
    for ours, theirs in zip(kept, expected, strict=True):
        assert {tuple(p) for p in ours.tolist()} == {tuple(p) for p in theirs.tolist()}


@pytest.mark.parametrize("num_uncertain", [0, 1, 50])
def test_pick_uncertain__as_many_as_asked_for(num_uncertain):
    maps = torch.zeros(6, 4, 4)  # all equally near to zero
    candidates = torch.rand(6, 50, 2)
    kept = point_sampling.pick_uncertain(
        maps, candidates, num_uncertain, framed_maps=framed(), images=IMAGES, labels=LABELS
    )
    assert kept.shape == (6, num_uncertain, 2)
    assert all(len({tuple(p) for p in row.tolist()}) == num_uncertain for row in kept)


def test_pick_uncertain__unknown_candidates_only_if_nothing_else_is_left():
    void = frame(torch.full((2, 1, 5, 5), -2))
    void[:, :, 1:-1, 1:3] = 0  # the first two of five columns are known
    candidates = torch.rand(6, 80, 2)
    known = candidates[..., 0] < 0.4
    kept = point_sampling.pick_uncertain(MAPS, candidates, 60, framed_maps=void, images=IMAGES, labels=LABELS)
    for row, inside, all_known in zip(kept, kept[..., 0] < 0.4, known.sum(1), strict=True):
        assert len(row) == 60
        assert inside.sum() == min(int(all_known), 60)


@pytest.mark.parametrize("slices", [1, 3])
def test_read_pairs__equals_the_definition(slices):
    maps, points = framed(slices), torch.rand(6, 200, 2)
    maps[:, 1:] = maps[:, 1:].clamp(min=-1)
    if slices > 1:  # a segment lies in one sheet
        maps[:, 1:] = maps[:, 1:].where(maps[:, 1:] < 0, maps[:, 1:] + 4)
    points[:, :2] = torch.tensor([[0.0, 0.0], [1 - 1e-7, 1 - 1e-7]])
    ours = point_sampling.read_pairs(maps, points, IMAGES, SEGMENTS, LABELS)
    theirs = read_paired_segments(maps, points, IMAGES, SEGMENTS, LABELS)
    for got, expected in zip(ours, theirs, strict=True):
        # The compiler fuses product and sum: coordinates of up to 21 pixels differ by one rounding, 2e-6.
        torch.testing.assert_close(got, expected, rtol=0, atol=4e-6)


def test_point_sampling__no_pair():
    none = torch.zeros(0, dtype=torch.long)
    options = dict(framed_maps=framed(), images=none, labels=none)
    assert point_sampling.pick_uncertain(MAPS[:0], torch.rand(0, 50, 2), 9, **options).shape == (0, 9, 2)
    masks, known = point_sampling.read_pairs(framed(), torch.rand(0, 9, 2), none, none, none)
    assert masks.shape == known.shape == (0, 9)
