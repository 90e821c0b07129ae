"""Run on a GPU where there is one, else in Triton's interpreter: slow, hence the small tensors.

`conftest.py` sets TRITON_INTERPRET, which Triton reads while it is imported.
"""

import pytest
import torch
from torch import Tensor

from mmseg_m2f.compat import is_installed
from mmseg_m2f.core import points as core_points
from mmseg_m2f.core.matching import mask_sums
from mmseg_m2f.core.targets import frame, is_valid, read_paired_segments, read_segments
from mmseg_m2f.layers.kernels import triton_points as kernel
from mmseg_m2f.structures import CROWD

pytestmark = pytest.mark.skipif(not is_installed("triton"), reason="Triton is not installed: pip install triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMAGES = torch.tensor([0, 0, 1, 1, 1, 0], device=DEVICE)
SEGMENTS = torch.tensor([0, 3, 1, 2, 0, 1], device=DEVICE)
LABELS = torch.tensor([2, 0, 1, 1, 2, 0], device=DEVICE)


def framed(slices: int = 1) -> Tensor:
    """Segments, background, void and crowds of the classes 0 and 1 anywhere; a segment lies in one slice."""
    maps = frame(torch.randint(CROWD - 1, 4, (2, slices, 17, 21)))
    maps[:, 1:] = maps[:, 1:].clamp(min=-1)
    first = 4 * torch.arange(slices).view(-1, 1, 1)
    return maps.where(maps < 0, maps + first).to(DEVICE)


#: Rows, queries, channels, points, segments, slices of the segment maps.
SIZES = {
    "usual": (3, 20, 40, 70, 4, 1),
    "one of each": (1, 1, 1, 1, 1, 1),
    "several blocks": (1, 130, 33, 70, 70, 1),
    "overlapping segments": (2, 5, 16, 64, 8, 2),
    "no segment": (2, 5, 16, 65, 0, 1),
    "no row": (0, 5, 16, 64, 4, 1),
}


@pytest.mark.parametrize(("size", "dtype"), [*((size, torch.float32) for size in SIZES), ("usual", torch.bfloat16)])
def test_mask_sums__equal_those_of_readings(size, dtype):
    rows, queries, channels, num_points, num_segments, slices = SIZES[size]
    embeddings = torch.randn(rows, queries, channels, device=DEVICE).to(dtype)
    features = torch.randn(2, channels, 9, 13, device=DEVICE).to(dtype)
    points = torch.rand(rows, num_points, 2, device=DEVICE)
    images, maps = IMAGES[:rows], framed(slices)
    sums = kernel.mask_sums(embeddings, features, points, images, maps, num_segments)

    at_points = core_points.sample_points(features.float()[images], points) if rows else points.new_zeros(0, 1, 1)
    logits = embeddings.float() @ at_points if rows else points.new_zeros(0, queries, num_points)
    masks, validity = read_segments(maps, points, images, max(num_segments, 4 * slices))
    masks = masks[:, :num_segments]
    expected = mask_sums(logits, masks, validity)
    assert expected._fields == sums._fields
    for name, actual, value in zip(sums._fields, sums, expected, strict=True):
        torch.testing.assert_close(actual, value, rtol=1e-4, atol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


def test_pick_uncertain__keeps_what_the_definition_keeps():
    maps, candidates, framed_maps = torch.randn(6, 9, 13), torch.rand(6, 300, 2), framed()
    kept = kernel.pick_uncertain(
        maps.to(DEVICE), candidates.to(DEVICE), 90, framed_maps=framed_maps, images=IMAGES, labels=LABELS
    ).cpu()
    logits = core_points.sample_points(maps.unsqueeze(1), candidates).squeeze(1)
    usable = is_valid(framed_maps.cpu(), candidates, IMAGES.cpu(), LABELS.cpu())
    expected = core_points.pick_uncertain(logits, candidates, 90, usable=usable)
    for ours, theirs in zip(kept, expected, strict=True):
        assert {tuple(p) for p in ours.tolist()} == {tuple(p) for p in theirs.tolist()}


def test_pick_uncertain__void_candidates_only_if_nothing_else_is_left():
    void = frame(torch.full((2, 1, 5, 5), -2)).to(DEVICE)
    void[:, :, 1:-1, 1:3] = 0  # the first two of five columns are valid
    candidates = torch.rand(6, 80, 2, device=DEVICE)
    kept = kernel.pick_uncertain(
        torch.randn(6, 4, 4, device=DEVICE), candidates, 60, framed_maps=void, images=IMAGES, labels=LABELS
    )
    valid = (candidates[..., 0] < 0.4).sum(1)
    for inside, count in zip((kept[..., 0] < 0.4).sum(1), valid, strict=True):
        assert inside == min(int(count), 60)


def test_kernels__numbers_of_rows_may_share_memory():
    """As in a batch of one image, `torch.arange(1).expand(rows)`: a kernel that walks on reads other memory."""
    images, segments, labels = (torch.stack([each, each.flip(0)], 1)[:, 0] for each in (IMAGES, SEGMENTS, LABELS))
    maps, points, logits = framed(), torch.rand(6, 70, 2, device=DEVICE), torch.randn(6, 9, 13, device=DEVICE)
    embeddings, features = torch.randn(6, 5, 16, device=DEVICE), torch.randn(2, 16, 9, 13, device=DEVICE)
    for theirs, ours in zip(
        kernel.mask_sums(embeddings, features, points, IMAGES, maps, 4),
        kernel.mask_sums(embeddings, features, points, images, maps, 4),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
    theirs = kernel.pick_uncertain(logits, points, 20, framed_maps=maps, images=IMAGES, labels=LABELS)
    ours = kernel.pick_uncertain(logits, points, 20, framed_maps=maps, images=images, labels=labels)
    assert {tuple(p) for p in ours.flatten(0, 1).tolist()} == {tuple(p) for p in theirs.flatten(0, 1).tolist()}
    for theirs, ours in zip(
        kernel.read_pairs(maps, points, IMAGES, SEGMENTS, LABELS),
        kernel.read_pairs(maps, points, images, segments, labels),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("slices", [1, 3])
def test_read_pairs__equals_the_definition(slices):
    maps, points = framed(slices), torch.rand(6, 200, 2, device=DEVICE)
    for segments in (SEGMENTS, SEGMENTS + 4 * (slices - 1)):
        masks, validity = kernel.read_pairs(maps, points, IMAGES, segments, LABELS)
        expected = read_paired_segments(maps, points, IMAGES, segments, LABELS)
        torch.testing.assert_close(masks, expected[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(validity, expected[1], rtol=0, atol=1e-5)
        assert masks.max() > 0.5
