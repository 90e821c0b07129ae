import numpy as np
import pytest
import torch
from scipy import ndimage

from mmseg_m2f.core.postprocess import Instances, tight_boxes
from mmseg_m2f.core.selection import survives_nms
from mmseg_m2f.core.view_merging import (
    mean_scores,
    merge_objects,
    merge_panoptic,
    mirror_objects,
    objects_found,
    suppress_duplicates,
)
from mmseg_m2f.core.window_objects import FoundObjects, JoinedObject, found_objects
from mmseg_m2f.core.windows import Window

SIZE = (40, 60)
EVERYWHERE = Window(slice(0, 40), slice(0, 60), slice(0, 40), slice(0, 60))


def found(masks: np.ndarray, labels: list[int], scores: list[float]) -> FoundObjects:
    tensors = torch.from_numpy(masks)
    instances = Instances(torch.tensor(scores), torch.tensor(labels), tight_boxes(tensors), tensors)
    return found_objects(instances, EVERYWHERE)


def columns(first: int, stop: int) -> np.ndarray:
    """A mask of whole columns."""
    return np.broadcast_to((np.arange(60) >= first) & (np.arange(60) < stop), SIZE).copy()


def dense(objects: list[JoinedObject]) -> np.ndarray:
    masks = np.zeros((len(objects), *SIZE), bool)
    for mask, each in zip(masks, objects, strict=True):
        top, left, bottom, right = each.box
        mask[top:bottom, left:right] = each.crop
    return masks


def random_objects(seed: int, count: int = 40) -> FoundObjects:
    """Overlapping rectangles and blobs of two classes."""
    draw = np.random.default_rng(seed)
    masks = np.zeros((count, *SIZE), bool)
    for mask in masks:
        top, left = draw.integers(0, 25), draw.integers(0, 40)
        mask[top : top + draw.integers(4, 15), left : left + draw.integers(4, 20)] = True
        mask &= draw.random(SIZE) < 0.9
    return found(masks, draw.integers(0, 2, count).tolist(), draw.random(count).round(3).tolist())


@pytest.mark.parametrize("num_views", [1, 2, 3, 6])
def test_merge_objects__views_that_agree_change_nothing(num_views):
    noise = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=SIZE), 3)
    segments, count = ndimage.label(noise > 0.3 * noise.std())
    masks = np.stack([segments == number + 1 for number in range(count)])
    scores = np.linspace(0.9, 0.3, count).tolist()
    labels = [number % 3 for number in range(count)]
    orders = [np.random.default_rng(view).permutation(count) for view in range(num_views)]
    views = [found(masks[order], [labels[n] for n in order], [scores[n] for n in order]) for order in orders]
    merged = merge_objects(views, SIZE)
    assert [each.label for each in merged] == labels
    np.testing.assert_allclose([each.score for each in merged], scores, rtol=1e-6)
    assert np.array_equal(dense(merged), masks)
    assert all(len(each.parts) == num_views for each in merged)


def test_merge_objects__masks_and_scores_by_hand():
    views = [
        found(np.stack([columns(0, 10), columns(40, 50)]), [0, 1], [0.9, 0.6]),
        found(np.stack([columns(2, 12)]), [0], [0.6]),
        found(np.stack([columns(3, 13), columns(40, 50)]), [0, 2], [0.6, 0.3]),
    ]
    merged = merge_objects(views, SIZE)
    # Columns 2 hold 1.5 of 2.1, columns 10 and 11 1.2, columns 0, 1 and 12 less than 1.05.
    assert np.array_equal(dense(merged), np.stack([columns(2, 12), columns(40, 50), columns(40, 50)]))
    np.testing.assert_allclose([each.score for each in merged], [0.7, 0.2, 0.1], rtol=1e-6)
    assert [each.label for each in merged] == [0, 1, 2]  # two classes are two objects
    assert merged[0].parts == ((0, 0), (1, 0), (2, 0))


def test_merge_objects__each_view_has_found_an_object_once():
    views = [
        found(np.stack([columns(0, 20)]), [0], [0.9]),
        found(np.stack([columns(0, 18), columns(1, 20)]), [0, 0], [0.5, 0.6]),
    ]
    merged = merge_objects(views, SIZE)
    assert [each.parts for each in merged] == [((0, 0), (1, 1)), ((1, 0),)]  # 0.95 · 0.6 before 0.9 · 0.5
    assert merge_objects(views, SIZE, min_iou=0.96)[0].parts == ((0, 0),)


def test_merge_objects__two_views_in_any_order():
    first, second = random_objects(0), random_objects(1)
    one, other = (merge_objects(views, SIZE, min_iou=0.3) for views in ([first, second], [second, first]))
    assert sum(len(each.parts) == 2 for each in one) > 3
    assert {(each.label, each.score, each.box, each.crop.tobytes()) for each in one} == {
        (each.label, each.score, each.box, each.crop.tobytes()) for each in other
    }


def test_merge_objects__nothing_found():
    nothing = found(np.zeros((0, *SIZE), bool), [], [])
    assert merge_objects([nothing, nothing], SIZE) == []
    assert [each.score for each in merge_objects([nothing, found(columns(0, 3)[None], [0], [0.5])], SIZE)] == [0.25]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.6])
def test_suppress_duplicates__equals_suppression_of_whole_masks(threshold):
    objects = merge_objects([random_objects(7, count=80)], SIZE)
    masks, labels = torch.from_numpy(dense(objects)), torch.tensor([each.label for each in objects])
    scores = torch.tensor([each.score for each in objects])
    survives = survives_nms(masks[None], labels[None], scores[None], threshold)[0]
    assert 0 < survives.sum() < len(objects)
    kept = suppress_duplicates(objects, SIZE, threshold)
    assert [each.parts for each in kept] == [each.parts for each, stays in zip(objects, survives, strict=True) if stays]


def test_merge_objects__scores_of_zero():
    views = [found(columns(0, 3)[None], [0], [0.0])] * 2
    (merged,) = merge_objects(views, SIZE)
    assert (merged.score, merged.box) == (0.0, (0, 0, 40, 3))


def test_suppress_duplicates__nothing_found():
    assert suppress_duplicates([], SIZE, 0.5) == []


@pytest.mark.parametrize(("direction", "axes"), [("horizontal", (2,)), ("vertical", (1,)), ("diagonal", (1, 2))])
def test_mirror_objects__equals_mirrored_masks(direction, axes):
    objects = merge_objects([random_objects(5)], SIZE)
    mirrored = mirror_objects(objects, SIZE, direction)
    assert np.array_equal(dense(mirrored), np.flip(dense(objects), axes))
    assert [each.score for each in mirrored] == [each.score for each in objects]
    assert np.array_equal(objects_found(mirror_objects(mirrored, SIZE, direction)).boxes, objects_found(objects).boxes)


def things(stuff: int, *spans: tuple[int, int, int]) -> np.ndarray:
    """A map of one kind of stuff with things as class + 1000 · number in columns."""
    seen = np.full(SIZE, stuff)
    for identity, first, stop in spans:
        seen[:, first:stop] = identity
    return seen


def test_merge_panoptic__by_hand():
    maps = [
        things(3, (1001, 0, 10), (2002, 20, 30)),
        things(3, (5001, 0, 12)),  # another number of the same thing
        things(4, (1001, 0, 14), (2001, 40, 50)),
    ]
    merged = merge_panoptic(maps, num_classes=5)
    # Columns 10 and 11 are in two of three masks; what one view alone found, is stuff as in the others.
    assert (merged % 1000 == things(3, (1, 0, 12))).all()
    assert sorted(np.unique(merged)) == [3, 1001]


def test_merge_panoptic__of_two_views_each_adds_what_it_found():
    first = things(3, (1001, 0, 10), (2001, 15, 40))
    first[:5] = 4
    second = things(4, (1001, 20, 30), (5, 50, 60))  # the last ten columns are void
    merged = merge_panoptic([first, second], num_classes=5)
    expected = things(4, (1, 0, 10), (1, 15, 40), (3, 50, 60))  # 4 covers more than 3
    expected[:5] = 4
    expected[:, 20:30] = 1
    assert np.array_equal(merged % 1000, expected)
    assert len(np.unique(merged[10, 15:40])) == 2
    assert len(np.unique(merged[:, 20:30])) == 1  # the smaller thing lies in front


@pytest.mark.parametrize("num_views", [2, 3, 4])
def test_merge_panoptic__views_in_any_order(num_views):
    maps = []
    for view in range(num_views):
        draw = np.random.default_rng(view)
        noise = np.random.default_rng(9).normal(size=SIZE) + draw.normal(size=SIZE) / 3
        segments, _ = ndimage.label(ndimage.gaussian_filter(noise, 1.5) > 0.15)
        stuff = np.where(ndimage.gaussian_filter(draw.normal(size=SIZE), 6) > 0, 3, 4)
        stuff[draw.random(SIZE) < 0.3] = 5  # void
        maps.append(np.where(segments > 0, 1 + 1000 * segments, stuff))
    merged = merge_panoptic(maps, num_classes=5)
    assert len(np.unique(merged)) > 10
    for order in (np.arange(num_views)[::-1], np.roll(np.arange(num_views), 1)):
        other = merge_panoptic([maps[view] for view in order], num_classes=5)
        assert np.array_equal(other % 1000, merged % 1000)
        pairs = np.unique(np.stack([merged.ravel(), other.ravel()]), axis=1)
        assert pairs.shape[1] == len(np.unique(merged)) == len(np.unique(other))


def test_merge_panoptic__nothing_is_void():
    void = things(5)
    assert (merge_panoptic([void, void], num_classes=5) == 5).all()
    assert (merge_panoptic([void, things(3)], num_classes=5) == 3).all()
    assert (merge_panoptic([things(2001), void, void], num_classes=5) == 5).all()


def test_merge_panoptic__maps_that_agree_change_nothing():
    noise = ndimage.gaussian_filter(np.random.default_rng(4).normal(size=SIZE), 3)
    segments, _ = ndimage.label(noise > 0.3 * noise.std())
    truth = np.where(segments > 0, segments % 3 + 1000 * segments, 3)
    renumbered = np.where(segments > 0, segments % 3 + 1000 * (segments.max() + 1 - segments), 3)
    merged = merge_panoptic([truth, renumbered, truth], num_classes=5)
    assert np.array_equal(merged % 1000, truth % 1000)
    pairs = np.unique(np.stack([merged.ravel(), truth.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(truth)) == len(np.unique(merged))


def test_mean_scores__of_pairs():
    views = [torch.rand(3, 4, 5) for _ in range(5)]
    torch.testing.assert_close(mean_scores(views), torch.stack(views).mean(0))
    swapped = [views[1], views[0], views[3], views[2], views[4]]
    assert torch.equal(mean_scores(views), mean_scores(swapped))
    assert torch.equal(mean_scores(views[:1]), views[0])
