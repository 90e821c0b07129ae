"""One annotation, every task."""

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import PackDetInputs
from mmdet.structures.mask import BitmapMasks

from mmseg_m2f.datasets import GeneratedShapes, ObjectsToSegments, Segment, SegmentsToLabels, SegmentsToObjects
from mmseg_m2f.registry import TRANSFORMS
from mmseg_m2f.samples import read_segments_target
from mmseg_m2f.structures import BACKGROUND, CROWD, IGNORE_INDEX, VOID

PIPELINE = [
    dict(type="mmengine.RandomFlip", prob=1.0),
    dict(type="mmseg_m2f.SegmentsToObjects"),
    dict(type="mmdet.PackDetInputs", meta_keys=("img_path", "ori_shape", "img_shape")),
]


def test_segments_to_objects__agree_with_the_semantic_labels() -> None:
    objects = GeneratedShapes(5, segments=True, pipeline=PIPELINE)
    labels = GeneratedShapes(5)
    for index in range(5):
        sample = objects[index]["data_samples"]
        semantic = labels.get_data_info(index)["gt_seg_map"][:, ::-1]  # flipped
        assert np.array_equal(sample.gt_sem_seg.sem_seg[0].numpy(), semantic)
        things = [s for s in labels.get_data_info(index)["segments"] if s.is_thing]
        assert sorted(sample.gt_instances.labels.tolist()) == sorted(s.category for s in things)
        for mask, label in zip(sample.gt_instances.masks, sample.gt_instances.labels, strict=True):
            assert (semantic[mask.numpy()] == label.item()).all()
        assert sorted(sample.gt_instances.masks.sum((1, 2)).tolist()) == sorted(s.area for s in things)


def test_segments_to_objects__no_thing() -> None:
    results = dict(gt_seg_map=np.full((4, 5), 255), segments=())
    out = TRANSFORMS.build(dict(type="mmseg_m2f.SegmentsToObjects"))(results)
    assert out["gt_masks"].shape == (0, 4, 5)
    assert (out["gt_seg_map"] == 255).all()


# Two stuff classes (0 and 1) and two thing classes (2 and 3).
SEGMENTS = (
    Segment(0, False, 0),
    Segment(3, True, 0),
    Segment(2, True, 0, is_crowd=True),
    Segment(2, True, 0),
)
ROW = [IGNORE_INDEX, 0, 0, 1, 2, 2, 3, 3]


def sample() -> dict:
    return dict(
        img=np.zeros((4, 8, 3), np.uint8),
        gt_seg_map=np.tile(np.asarray(ROW, np.int16), (4, 1)),
        segments=SEGMENTS,
        img_path="a.jpg",
    )


def test_segments_to_objects__absent_segments_are_renumbered() -> None:
    given = sample() | dict(absent_segments=(3, 0, 2))
    assert SegmentsToObjects()(dict(given))["absent_segments"] == (3, 0, 2)
    assert SegmentsToObjects([3, 2])(dict(given))["absent_segments"] == (0, 1)


def test_segments_to_objects__crowds_are_ignored_and_keep_their_class() -> None:
    results = PackDetInputs(meta_keys=())(SegmentsToObjects()(sample()))["data_samples"]
    assert results.gt_instances.labels.tolist() == [3, 2]
    assert results.ignored_instances.labels.tolist() == [2]
    assert results.ignored_instances.masks[0, 0].nonzero().flatten().tolist() == [4, 5]
    assert results.gt_sem_seg.sem_seg[0, 0].tolist() == [IGNORE_INDEX, 0, 0, 3, 2, 2, 2, 2]
    target = read_segments_target(results, torch.tensor([False, False, True, True]))
    assert target.labels.tolist() == [3, 2, 0]
    assert target.segment_map[0, 0].tolist() == [VOID, 2, 2, 0, CROWD - 2, CROWD - 2, 1, 1]


def test_segments_to_objects__things_alone_have_stuff_as_background() -> None:
    packed = PackDetInputs(meta_keys=())(SegmentsToObjects(thing_classes=[2, 3])(sample()))["data_samples"]
    assert packed.gt_instances.labels.tolist() == [1, 0]
    assert "gt_sem_seg" not in packed
    target = read_segments_target(packed, torch.tensor([True, True]))
    expected = [VOID, BACKGROUND, BACKGROUND, 0, CROWD, CROWD, 1, 1]
    assert target.segment_map[0, 0].tolist() == expected


def test_segments_to_objects__a_class_left_out_is_background() -> None:
    results = SegmentsToObjects(thing_classes=[3], ignore_void=False)(sample())
    assert results["gt_bboxes_labels"].tolist() == [0]
    assert results["gt_ignore_flags"].tolist() == [False]
    assert results["gt_masks"][0, 0].nonzero().flatten().tolist() == [3]


def test_segments_to_labels__are_the_semantic_labels_of_the_scene() -> None:
    pipeline = [dict(type="mmseg_m2f.SegmentsToLabels"), dict(type="mmseg.PackSegInputs")]
    derived = GeneratedShapes(3, segments=True, pipeline=pipeline)
    labels = GeneratedShapes(3, pipeline=pipeline[1:])
    for index in range(3):
        assert torch.equal(*(d[index]["data_samples"].gt_sem_seg.data for d in (derived, labels)))


def test_segments_to_labels__crowds_have_their_class() -> None:
    results = SegmentsToLabels()(sample())
    assert results["gt_seg_map"].dtype == np.uint8
    assert results["gt_seg_map"][0].tolist() == [IGNORE_INDEX, 0, 0, 3, 2, 2, 2, 2]


def test_objects_to_segments__undo_the_split_of_generated_scenes() -> None:
    """Objects and labels merged give the scene's segments again."""
    things = list(range(3, 8))
    for index in range(5):
        info = GeneratedShapes(5, segments=True).get_data_info(index)
        split = SegmentsToObjects()(dict(info))
        split["gt_bboxes_labels"] = split["gt_bboxes_labels"] - things[0]
        merged = ObjectsToSegments(things)(split)
        ours, theirs = merged["gt_seg_map"], info["gt_seg_map"]
        assert np.array_equal(ours == IGNORE_INDEX, theirs == IGNORE_INDEX)
        pairs = np.unique(np.stack([ours.ravel(), theirs.ravel()]), axis=1).T
        assert len(pairs) == len({a for a, _ in pairs.tolist()}) == len({b for _, b in pairs.tolist()})
        for a, b in pairs.tolist():
            assert a == b == IGNORE_INDEX or merged["segments"][a] == info["segments"][b]
        assert "gt_masks" not in merged


def test_objects_to_segments__small_objects_win_and_unseparated_things_are_void() -> None:
    masks = np.zeros((3, 4, 8), bool)
    masks[0, :, 1:4] = masks[1, :, 3:5] = masks[2, :, 2:4] = True
    results = dict(
        gt_masks=BitmapMasks(masks.astype(np.uint8), 4, 8),
        gt_bboxes_labels=np.asarray([0, 1, 0]),
        gt_ignore_flags=np.asarray([False, False, True]),  # the crowd is small, yet covers nothing
        gt_seg_map=np.tile(np.asarray([0, 0, 0, 0, 0, 2, 1, 255], np.uint8), (4, 1)),
    )
    out = ObjectsToSegments(thing_classes=[2, 3])(results)
    found = [out["segments"][i] if i != IGNORE_INDEX else None for i in out["gt_seg_map"][0]]
    stuff, big, small = Segment(0, False, 4), Segment(2, True, 8), Segment(3, True, 8)
    assert found == [stuff, big, big, small, small, None, Segment(1, False, 4), None]


def test_objects_to_segments__names_the_image_at_fault() -> None:
    results = dict(
        img_path="a.jpg",
        gt_masks=np.zeros((1, 4, 8), bool),
        gt_bboxes_labels=np.asarray([2]),
        gt_seg_map=np.zeros((4, 8), np.uint8),
    )
    with pytest.raises(ValueError, match=r"image a\.jpg: expected object labels 0…1, got 2"):
        ObjectsToSegments([2, 3])(dict(results))
    with pytest.raises(ValueError, match=r"image a\.jpg: the masks are 4 x 8 .*, but the label b\.png is \(8, 4\)"):
        ObjectsToSegments([2, 3, 4])(results | dict(gt_seg_map=np.zeros((8, 4), np.uint8), seg_map_path="b.png"))
