import torch

from mmseg_m2f.core.points import sample_points
from mmseg_m2f.core.targets import (
    frame,
    is_known,
    read_paired_segments,
    read_segments,
    segments_of_label_map,
    segments_of_masks,
    stack_segment_maps,
)
from mmseg_m2f.structures import BACKGROUND, CROWD, VOID


def test_segments_of_label_map__classes_and_void():
    labels, segment_map = segments_of_label_map(torch.tensor([[7, 2, 255], [2, 2, 7]]), [2, 7], num_labels=256)
    assert labels.tolist() == [2, 7]
    assert segment_map.tolist() == [[[1, 0, VOID], [0, 0, 1]]]


def test_segments_of_label_map__no_class():
    labels, segment_map = segments_of_label_map(torch.full((2, 2), 255), [], num_labels=256)
    assert labels.shape == (0,)
    assert (segment_map == VOID).all()


def random_maps(num_segments: int) -> torch.Tensor:
    return torch.randint(VOID, num_segments, (2, 1, 9, 13))


def test_read_segments__equals_sampling_the_dense_masks():
    maps, points = random_maps(4), torch.rand(2, 200, 2, dtype=torch.float64)
    masks, known = read_segments(frame(maps), points, torch.arange(2), 4)
    dense = torch.cat([maps == g for g in range(4)], 1).double()
    torch.testing.assert_close(masks, sample_points(dense, points), rtol=0, atol=1e-12)
    inner = ((points > 0.1) & (points < 0.9)).all(-1)  # at the border, void goes on outside the map
    void = sample_points((maps == VOID).double(), points).squeeze(1)
    torch.testing.assert_close(known[inner], (1 - void)[inner], rtol=0, atol=1e-12)


def test_read_segments__void_goes_on_outside_the_map():
    _, known = read_segments(frame(torch.full((1, 1, 4, 4), VOID)), torch.zeros(1, 1, 2), torch.arange(1), 1)
    assert known.item() == 0.0


def test_read_segments__no_segment():
    masks, known = read_segments(frame(torch.full((1, 1, 4, 4), BACKGROUND)), torch.rand(1, 5, 2), torch.arange(1), 0)
    assert masks.shape == (1, 0, 5)
    assert (known == 1).all()


def test_read_paired_segments__agrees_with_read_segments():
    maps, points = random_maps(3), torch.rand(2, 50, 2)
    images, segments = torch.tensor([0, 0, 1]), torch.tensor([2, 0, 1])
    masks, known = read_paired_segments(frame(maps), points[images], images, segments, images)
    all_masks, all_known = read_segments(frame(maps), points, torch.arange(2), 3)
    torch.testing.assert_close(masks, all_masks[images, segments])
    torch.testing.assert_close(known, all_known[images])


def test_is_known__reads_the_pixel_of_the_point():
    maps = torch.tensor([[[[VOID, 0], [BACKGROUND, VOID]]], [[[0, VOID], [0, 0]]]])
    points = torch.tensor([[[0.1, 0.1], [0.9, 0.1], [0.1, 0.9], [1.0, 1.0]]]).expand(2, -1, -1)
    known = is_known(frame(maps), points, torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert known.tolist() == [[False, True, True, False], [True, False, True, True]]


def overlapping_masks() -> torch.Tensor:
    """Three masks, of which the first two overlap."""
    masks = torch.zeros(3, 6, 8, dtype=torch.bool)
    masks[0, :4, :5] = masks[1, 2:, 3:7] = masks[2, 5, 0:2] = True
    return masks


def test_segments_of_masks__one_sheet_where_nothing_overlaps():
    masks = overlapping_masks()[[0, 2]]
    sheets = segments_of_masks(masks)
    assert sheets.shape == (1, 6, 8)
    assert all(torch.equal(sheets[0] == index, mask) for index, mask in enumerate(masks))


def test_segments_of_masks__overlap_opens_a_second_sheet():
    masks = overlapping_masks()
    sheets = segments_of_masks(masks)
    assert len(sheets) == 2
    assert all(torch.equal((sheets == index).any(0), mask) for index, mask in enumerate(masks))
    assert set(sheets[1].unique().tolist()) == {BACKGROUND, 1}


def test_segments_of_masks__none():
    assert (segments_of_masks(torch.zeros(0, 3, 4, dtype=torch.bool)) == BACKGROUND).all()


def test_read_segments__overlapping_masks_equal_the_dense_path():
    masks, points = overlapping_masks(), torch.rand(1, 300, 2, dtype=torch.float64)
    sheets = frame(stack_segment_maps([segments_of_masks(masks)]))
    dense = sample_points(masks.double().unsqueeze(0), points)
    torch.testing.assert_close(read_segments(sheets, points, torch.arange(1), 3)[0], dense, rtol=0, atol=1e-12)
    paired, known = read_paired_segments(
        sheets, points.expand(3, -1, -1), torch.zeros(3).long(), torch.arange(3), torch.zeros(3).long()
    )
    torch.testing.assert_close(paired, dense[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(known, torch.ones_like(known))


def test_stack_segment_maps__fewer_sheets_are_filled_up():
    stacked = stack_segment_maps([torch.zeros(1, 2, 2).long(), torch.ones(3, 2, 2).long()])
    assert stacked.shape == (2, 3, 2, 2)
    assert (stacked[0, 1:] == BACKGROUND).all()


def test_crowd__is_unknown_to_its_own_class_and_outside_of_others():
    maps = frame(torch.tensor([[[[CROWD - 7, CROWD - 7], [0, BACKGROUND]]]]))
    points, images = torch.tensor([[[0.25, 0.25], [0.25, 0.75]]]).expand(2, -1, -1), torch.zeros(2).long()
    labels = torch.tensor([7, 3])
    masks, known = read_paired_segments(maps, points, images, torch.zeros(2).long(), labels)
    assert masks.tolist() == [[0, 1], [0, 1]]
    assert known.tolist() == [[0, 1], [1, 1]]
    assert is_known(maps, points, images, labels).tolist() == [[False, True], [True, True]]
    _, known = read_segments(maps, points[:1], images[:1], 1)  # matching asks for all classes at once
    assert known.tolist() == [[0, 1]]


def test_frame__outside_is_background_or_goes_on_as_void():
    maps = torch.tensor([[[[VOID, 3], [5, 4]]]])
    expected = [[VOID, VOID, -1, -1], [VOID, VOID, 3, -1], [-1, 5, 4, -1], [-1, -1, -1, -1]]
    assert frame(maps)[0, 0].tolist() == expected
