import torch

from mmseg_m2f.core.boxes import to_corners
from mmseg_m2f.core.points import sample_points
from mmseg_m2f.core.postprocess import tight_boxes
from mmseg_m2f.core.targets import (
    boxes_of_segment_maps,
    frame,
    is_valid,
    read_paired_segments,
    read_segments,
    segments_of_label_maps,
    segments_of_masks,
    stack_segment_maps,
    stack_targets,
)
from mmseg_m2f.structures import BACKGROUND, CROWD, VOID, MaskTarget

OPTIONS = dict(num_labels=256, ignore_index=255)


def test_segments_of_label_maps__classes_and_void():
    maps = torch.tensor([[[7, 2, 255], [2, 2, 7]], [[9, 9, 9], [9, 9, 255]]])
    labels, segment_maps = segments_of_label_maps(maps, 2, **OPTIONS)
    assert labels.tolist() == [[2, 7], [9, 0]]
    assert segment_maps.tolist() == [[[[1, 0, VOID], [0, 0, 1]]], [[[0, 0, 0], [0, 0, VOID]]]]


def test_segments_of_label_maps__no_class():
    labels, segment_maps = segments_of_label_maps(torch.full((2, 3, 4), 255), 0, **OPTIONS)
    assert labels.shape == (2, 0)
    assert (segment_maps == VOID).all()


def test_segments_of_label_maps__classes_that_nobody_announced_are_void():
    labels, segment_maps = segments_of_label_maps(torch.tensor([[[4, 6, 5]]]), 2, **OPTIONS)
    assert labels.tolist() == [[4, 5]]
    assert segment_maps.flatten().tolist() == [0, VOID, 1]


def test_segments_of_label_maps__an_ignore_index_among_the_classes():
    labels, segment_maps = segments_of_label_maps(torch.tensor([[[0, 2, 1]]]), 2, num_labels=3, ignore_index=0)
    assert labels.tolist() == [[1, 2]]
    assert segment_maps.flatten().tolist() == [VOID, 1, 0]


def random_maps(num_segments: int) -> torch.Tensor:
    return torch.randint(VOID, num_segments, (2, 1, 9, 13))


def test_read_segments__equals_sampling_the_dense_masks():
    maps, points = random_maps(4), torch.rand(2, 200, 2, dtype=torch.float64)
    masks, validity = read_segments(frame(maps), points, torch.arange(2), 4)
    dense = torch.cat([maps == g for g in range(4)], 1).double()
    torch.testing.assert_close(masks, sample_points(dense, points), rtol=0, atol=1e-12)
    inner = ((points > 0.1) & (points < 0.9)).all(-1)  # at the border, void goes on outside the map
    void = sample_points((maps == VOID).double(), points).squeeze(1)
    torch.testing.assert_close(validity[inner], (1 - void)[inner], rtol=0, atol=1e-12)


def test_read_segments__void_goes_on_outside_the_map():
    _, validity = read_segments(frame(torch.full((1, 1, 4, 4), VOID)), torch.zeros(1, 1, 2), torch.arange(1), 1)
    assert validity.item() == 0.0


def test_read_segments__no_segment():
    masks, validity = read_segments(
        frame(torch.full((1, 1, 4, 4), BACKGROUND)), torch.rand(1, 5, 2), torch.arange(1), 0
    )
    assert masks.shape == (1, 0, 5)
    assert (validity == 1).all()


def test_read_paired_segments__agrees_with_read_segments():
    maps, points = random_maps(3), torch.rand(2, 50, 2)
    images, segments = torch.tensor([0, 0, 1]), torch.tensor([2, 0, 1])
    masks, validity = read_paired_segments(frame(maps), points[images], images, segments, images)
    all_masks, all_validity = read_segments(frame(maps), points, torch.arange(2), 3)
    torch.testing.assert_close(masks, all_masks[images, segments])
    torch.testing.assert_close(validity, all_validity[images])


def test_is_valid__reads_the_pixel_of_the_point():
    maps = torch.tensor([[[[VOID, 0], [BACKGROUND, VOID]]], [[[0, VOID], [0, 0]]]])
    points = torch.tensor([[[0.1, 0.1], [0.9, 0.1], [0.1, 0.9], [1.0, 1.0]]]).expand(2, -1, -1)
    validity = is_valid(frame(maps), points, torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert validity.tolist() == [[False, True, True, False], [True, False, True, True]]


def overlapping_masks() -> torch.Tensor:
    """Three masks, of which the first two overlap."""
    masks = torch.zeros(3, 6, 8, dtype=torch.bool)
    masks[0, :4, :5] = masks[1, 2:, 3:7] = masks[2, 5, 0:2] = True
    return masks


def test_segments_of_masks__one_slice_where_nothing_overlaps():
    masks = overlapping_masks()[[0, 2]]
    slices = segments_of_masks(masks)
    assert slices.shape == (1, 6, 8)
    assert all(torch.equal(slices[0] == index, mask) for index, mask in enumerate(masks))


def test_segments_of_masks__overlap_opens_a_second_slice():
    masks = overlapping_masks()
    slices = segments_of_masks(masks)
    assert len(slices) == 2
    assert all(torch.equal((slices == index).any(0), mask) for index, mask in enumerate(masks))
    assert set(slices[1].unique().tolist()) == {BACKGROUND, 1}


def test_segments_of_masks__none():
    assert (segments_of_masks(torch.zeros(0, 3, 4, dtype=torch.bool)) == BACKGROUND).all()


def test_read_segments__overlapping_masks_equal_the_dense_path():
    masks, points = overlapping_masks(), torch.rand(1, 300, 2, dtype=torch.float64)
    slices = frame(stack_segment_maps([segments_of_masks(masks)]))
    dense = sample_points(masks.double().unsqueeze(0), points)
    torch.testing.assert_close(read_segments(slices, points, torch.arange(1), 3)[0], dense, rtol=0, atol=1e-12)
    paired, validity = read_paired_segments(
        slices, points.expand(3, -1, -1), torch.zeros(3).long(), torch.arange(3), torch.zeros(3).long()
    )
    torch.testing.assert_close(paired, dense[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(validity, torch.ones_like(validity))


def test_stack_segment_maps__fewer_slices_are_filled_up():
    stacked = stack_segment_maps([torch.zeros(1, 2, 2).long(), torch.ones(3, 2, 2).long()])
    assert stacked.shape == (2, 3, 2, 2)
    assert (stacked[0, 1:] == BACKGROUND).all()


def test_crowd__is_void_to_its_own_class_and_outside_of_others():
    maps = frame(torch.tensor([[[[CROWD - 7, CROWD - 7], [0, BACKGROUND]]]]))
    points, images = torch.tensor([[[0.25, 0.25], [0.25, 0.75]]]).expand(2, -1, -1), torch.zeros(2).long()
    labels = torch.tensor([7, 3])
    masks, validity = read_paired_segments(maps, points, images, torch.zeros(2).long(), labels)
    assert masks.tolist() == [[0, 1], [0, 1]]
    assert validity.tolist() == [[0, 1], [1, 1]]
    assert is_valid(maps, points, images, labels).tolist() == [[False, True], [True, True]]
    _, validity = read_segments(maps, points[:1], images[:1], 1)  # matching asks for all classes at once
    assert validity.tolist() == [[0, 1]]


def test_frame__outside_is_background_or_goes_on_as_void():
    maps = torch.tensor([[[[VOID, 3], [5, 4]]]])
    expected = [[VOID, VOID, -1, -1], [VOID, VOID, 3, -1], [-1, 5, 4, -1], [-1, -1, -1, -1]]
    assert frame(maps)[0, 0].tolist() == expected


def test_stack_targets__pads_segments_and_slices():
    one = MaskTarget(torch.tensor([5]), torch.zeros(1, 2, 2).long(), "one", boxes=torch.ones(1, 4))
    two = MaskTarget(torch.tensor([7, 2]), torch.tensor([[[1, VOID]], [[0, 0]]]).expand(2, 2, 2), "two")
    targets = stack_targets([one, two])
    assert targets.labels.tolist() == [[5, 0], [7, 2]]
    assert targets.segment_maps.shape == (2, 2, 2, 2)
    assert (list(targets.num_segments), list(targets.names)) == ([1, 2], ["one", "two"])
    assert targets.classes_on_host() == [[5], [7, 2]]
    assert targets.boxes is None  # one image has none
    assert stack_targets(targets) is targets


def test_target_batch__void_and_crowds_as_background():
    maps = torch.tensor([[[0, VOID], [CROWD - 3, BACKGROUND]]])
    targets = stack_targets([MaskTarget(torch.tensor([1]), maps)]).with_void_as_background()
    assert targets.segment_maps.tolist() == [[[[0, BACKGROUND], [BACKGROUND, BACKGROUND]]]]
    assert targets.framed_maps.min() == BACKGROUND


def test_boxes_of_segment_maps__last_pixel_included() -> None:
    maps = torch.full((2, 2, 4, 8), BACKGROUND)
    maps[0, 0, 1:3, 2:6] = 0
    maps[0, 1, 3, 0] = 1
    maps[1, 0] = VOID
    maps[1, 0, 0, 7] = 0
    boxes = boxes_of_segment_maps(maps, 3)
    expected = torch.zeros(2, 3, 4)
    expected[0, 0] = torch.tensor([0.5, 0.5, 0.5, 0.5])
    expected[0, 1] = torch.tensor([1 / 16, 7 / 8, 1 / 8, 1 / 4])
    expected[1, 0] = torch.tensor([15 / 16, 1 / 8, 1 / 8, 1 / 4])
    torch.testing.assert_close(boxes, expected)


def test_boxes_of_segment_maps__are_those_of_masks() -> None:
    maps = torch.randint(-1, 5, (1, 1, 9, 13))
    masks = torch.stack([maps[0, 0] == segment for segment in range(5)])
    found = to_corners(boxes_of_segment_maps(maps, 5)[0]) * torch.tensor([13, 9, 13, 9])
    torch.testing.assert_close(found, tight_boxes(masks))
