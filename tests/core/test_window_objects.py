import numpy as np
import pytest
import torch
from scipy import ndimage

from mmseg_m2f.core.postprocess import Instances, tight_boxes
from mmseg_m2f.core.window_objects import FoundObjects, found_objects, found_segments, join_objects, join_panoptic
from mmseg_m2f.core.windows import WindowGrid, window_grid


def through_windows(masks: np.ndarray, labels: np.ndarray, grid: WindowGrid) -> list[FoundObjects]:
    """What a model without errors finds through each window."""
    found = []
    for window in grid:
        seen = torch.from_numpy(masks[:, window.rows, window.columns])
        objects = Instances(torch.ones(len(seen)), torch.from_numpy(labels), tight_boxes(seen), seen)
        found.append(found_objects(objects, window))
    return found


def paste(box: tuple[int, int, int, int], crop: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[box[0] : box[2], box[1] : box[3]] = crop
    return mask


def blobs(size: tuple[int, int], *, seed: int, smooth: float) -> tuple[np.ndarray, int]:
    """A map of connected blobs of any shape, 0 between them."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size), smooth)
    return ndimage.label(noise > 0.3 * noise.std())


@pytest.mark.parametrize(("crop", "stride"), [((32, 32), (16, 16)), ((40, 24), (23, 17)), ((16, 48), (15, 47))])
@pytest.mark.parametrize("smooth", [2.0, 6.0])
def test_join_objects__cut_masks_are_restored(crop, stride, smooth):
    size = (101, 133)
    segments, count = blobs(size, seed=3, smooth=smooth)
    masks = np.stack([segments == number + 1 for number in range(count)])
    labels = np.arange(count) % 3
    grid = window_grid(size, crop, stride)
    joined = join_objects(grid, through_windows(masks, labels, grid))
    assert len(joined) == count
    restored = {paste(each.box, each.crop, size).tobytes(): each.label for each in joined}
    assert restored == {mask.tobytes(): label for mask, label in zip(masks, labels.tolist(), strict=True)}
    assert {each.score for each in joined} == {1.0}


@pytest.mark.parametrize(("crop", "stride"), [((32, 32), (16, 16)), ((40, 24), (23, 17))])
def test_join_panoptic__cut_map_is_restored(crop, stride):
    size, num_classes = (101, 133), 5
    segments, _ = blobs(size, seed=5, smooth=4.0)
    stuff = np.where(np.arange(size[1]) < 60, 3, 4) * np.ones(size, int)
    stuff[:8] = num_classes  # nothing recognised
    truth = np.where(segments > 0, segments % 3 + 1000 * segments, stuff)
    grid = window_grid(size, crop, stride)
    maps = []
    for window in grid:  # each window numbers its objects anew
        _, numbers = np.unique(truth[window.rows, window.columns] // 1000, return_inverse=True)
        numbers = numbers.reshape(truth[window.rows, window.columns].shape)
        own = truth[window.rows, window.columns]
        maps.append(np.where(own >= 1000, own % 1000 + 1000 * (numbers + 1), own))
    restored = join_panoptic(grid, maps, num_classes=num_classes)
    pairs = np.unique(np.stack([truth.ravel(), restored.ravel()]), axis=1)
    assert len(pairs[0]) == len(set(pairs[0])) == len(set(pairs[1]))
    np.testing.assert_array_equal(pairs[0] % 1000, pairs[1] % 1000)
    np.testing.assert_array_equal(pairs[0] < 1000, pairs[1] < 1000)


def found(*objects: tuple[int, float, tuple[int, int, int, int]]) -> FoundObjects:
    """Rectangles: class, score, and top, left, bottom, right in the image."""
    labels, scores, boxes = zip(*objects, strict=True) if objects else ((), (), np.zeros((0, 4)))
    crops = [np.ones((b - t, r - x), bool) for t, x, b, r in boxes]
    return FoundObjects(np.array(labels, int), np.array(scores, np.float32), np.array(boxes, int), crops)


GRID = window_grid((10, 16), (10, 10), (6, 6))  # columns 0…9 and 6…15, divided at 8


def test_join_objects__a_score_counts_by_own_pixels():
    (one,) = join_objects(GRID, [found((0, 0.5, (0, 2, 4, 10))), found((0, 0.8, (0, 6, 4, 10)))])
    assert one.box == (0, 2, 4, 10)
    assert one.score == pytest.approx((0.5 * 6 + 0.8 * 2) / 8)
    assert one.parts == ((0, 0), (1, 0))


def test_join_objects__own_pixels_decide_the_mask():
    (one,) = join_objects(GRID, [found((0, 1.0, (0, 2, 4, 10))), found((0, 1.0, (0, 6, 5, 11)))])
    mask = np.zeros((10, 16), bool)
    mask[:4, 2:8] = True
    mask[:5, 8:11] = True
    np.testing.assert_array_equal(paste(one.box, one.crop, (10, 16)), mask)


def test_join_objects__seen_by_one_window_alone():
    kept, dropped = (0, 0.9, (0, 4, 4, 10)), (0, 0.9, (5, 7, 9, 10))  # 4 of 6 columns are own ones, 1 of 3
    (one,) = join_objects(GRID, [found(kept, dropped), found()])
    assert one.box == kept[2]
    assert one.score == pytest.approx(0.9)


def test_join_objects__another_class_is_another_object():
    joined = join_objects(GRID, [found((0, 0.9, (0, 4, 4, 10))), found((1, 0.8, (0, 6, 4, 12)))])
    assert [(each.label, each.box) for each in joined] == [(0, (0, 4, 4, 10)), (1, (0, 6, 4, 12))]


def test_join_objects__at_most_one_partner_the_best_one():
    doubtful, sure = (0, 0.1, (0, 6, 4, 12)), (0, 0.9, (0, 6, 4, 11))
    joined = join_objects(GRID, [found((0, 0.9, (0, 2, 4, 10))), found(doubtful, sure)])
    assert [each.parts for each in joined] == [((0, 0), (1, 1)), ((1, 0),)]


@pytest.mark.parametrize(("min_iou", "expected"), [(0.5, 1), (0.6, 2)])
def test_join_objects__iou_in_the_overlap(min_iou, expected):
    # 2 of 4 pixels of the overlap's first row and 4 of 4.
    joined = join_objects(GRID, [found((0, 0.9, (0, 1, 1, 8))), found((0, 0.9, (0, 6, 1, 14)))], min_iou=min_iou)
    assert len(joined) == expected


def test_join_objects__nothing_found():
    assert join_objects(GRID, [found(), found()]) == []


def test_found_objects__empty_masks_are_left_out():
    masks = torch.zeros(2, 10, 10, dtype=torch.bool)
    masks[1, 2:4, 5:9] = True
    window = [*GRID][1]
    objects = found_objects(Instances(torch.ones(2), torch.tensor([3, 4]), tight_boxes(masks), masks), window)
    assert objects.labels.tolist() == [4]
    assert objects.boxes.tolist() == [[2, 11, 4, 15]]


def test_found_segments__things_of_a_map():
    panoptic = np.full((10, 10), 2)
    panoptic[1:3, 4:7] = 1001
    objects = found_segments(panoptic, [*GRID][1])
    assert (objects.labels.tolist(), objects.boxes.tolist()) == ([1], [[1, 10, 3, 13]])
