"""Targets from data samples of both frameworks."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from mmseg_m2f.samples import read_segments_target, read_segments_targets, valid_pixels
from mmseg_m2f.structures import BACKGROUND, CROWD, VOID

IS_THING = torch.tensor([True, True, False, False])


def box_masks(*boxes: tuple[int, int, int, int]) -> BitmapMasks:
    """Masks of (top, bottom, left, right) on 8×10 pixels."""
    masks = np.zeros((len(boxes), 8, 10), np.uint8)
    for mask, (top, bottom, left, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return BitmapMasks(masks, 8, 10)


def make_sample(labels: list[int], masks: BitmapMasks, **metainfo: object) -> DetDataSample:
    sample = DetDataSample(metainfo=dict(img_path="a.jpg") | metainfo)
    sample.gt_instances = InstanceData(labels=torch.tensor(labels, dtype=torch.long), masks=masks)
    return sample


def test_read_segments_target__things_then_stuff_crowds_and_void():
    sample = make_sample([1, 0], box_masks((0, 4, 0, 5), (4, 8, 5, 10)))
    semantic = torch.full((1, 8, 10), 3)
    semantic[0, :4, :5], semantic[0, 4:, 5:], semantic[0, 0, 9] = 1, 0, 255
    semantic[0, 7, 0] = 1  # a crowd: the class of a thing, but no object there
    sample.gt_sem_seg = PixelData(sem_seg=semantic)
    target = read_segments_target(sample, IS_THING)
    assert target.labels.tolist() == [1, 0, 3]
    assert target.segment_map.shape == (1, 8, 10)
    assert [(target.segment_map == index).sum().item() for index in range(3)] == [20, 20, 38]
    assert target.segment_map[0, 0, 9] == VOID
    assert target.segment_map[0, 7, 0] == CROWD - 1


def test_read_segments_target__objects_alone_have_a_background():
    sample = make_sample([1], box_masks((0, 4, 0, 5)), img_shape=(8, 9))
    sample.ignored_instances = InstanceData(labels=torch.tensor([0]), masks=box_masks((3, 6, 3, 6)))
    segment_map = read_segments_target(sample, IS_THING).segment_map[0]
    assert (segment_map[:4, :5] == 0).all()  # the object wins over the crowd
    assert (segment_map[4:6, 3:6] == CROWD - 0).all()
    assert (segment_map[:, 9] == VOID).all()  # padding
    assert segment_map[7, 0] == BACKGROUND


def test_read_segments_target__overlapping_objects_stay_whole():
    target = read_segments_target(make_sample([0, 1], box_masks((0, 5, 0, 5), (3, 8, 3, 8))), IS_THING)
    assert [(target.segment_map == index).sum().item() for index in range(2)] == [25, 25]


def test_read_segments_target__emptied_objects_are_dropped():
    target = read_segments_target(make_sample([0, 1], box_masks((2, 2, 0, 0), (3, 8, 3, 8))), IS_THING)
    assert target.labels.tolist() == [1]


def test_read_segments_target__no_object():
    target = read_segments_target(make_sample([], box_masks()), IS_THING)
    assert target.num_segments == 0
    assert (target.segment_map == BACKGROUND).all()


def test_read_segments_target__label_outside_the_classes():
    with pytest.raises(ValueError, match=r"a.jpg: expected labels 0…3, got \[7\]"):
        read_segments_target(make_sample([7], box_masks((0, 1, 0, 1))), IS_THING)


def test_read_segments_target__unknown_stuff_label():
    sample = make_sample([1], box_masks((0, 4, 0, 5)))
    sample.gt_sem_seg = PixelData(sem_seg=torch.full((1, 8, 10), 200))
    with pytest.raises(ValueError, match=r"a.jpg: expected labels 0…3, got \[200\]"):
        read_segments_target(sample, IS_THING)


def test_read_segments_target__boxes_are_relative_to_the_image_without_padding():
    sample = make_sample([1, 0], box_masks((0, 4, 0, 5), (2, 2, 0, 0)), img_shape=(8, 5))
    sample.gt_instances.bboxes = torch.tensor([[0.0, 0.0, 4.5, 4.0], [0.0, 0.0, 1.0, 1.0]])
    sample.gt_sem_seg = PixelData(sem_seg=torch.full((1, 8, 10), 255))
    sample.gt_sem_seg.sem_seg[:, 6:, 1:5] = 2
    target = read_segments_target(sample, IS_THING, with_boxes=True)
    assert target.labels.tolist() == [1, 2]  # the second object is empty; stuff has a tight box
    expected = torch.tensor([[0.45, 0.25, 0.9, 0.5], [0.6, 0.875, 0.8, 0.25]])
    torch.testing.assert_close(target.boxes, expected)
    assert read_segments_target(sample, IS_THING).boxes is None


def test_read_segments_target__boxes_alone():
    sample = DetDataSample(metainfo=dict(img_path="a.jpg", img_shape=(8, 10), batch_input_shape=(8, 12)))
    boxes = torch.tensor([[1.0, 2.0, 3.0, 6.0]])
    sample.gt_instances = InstanceData(labels=torch.tensor([3]), bboxes=boxes)
    target = read_segments_target(sample, IS_THING, with_boxes=True)
    torch.testing.assert_close(target.boxes, torch.tensor([[0.2, 0.5, 0.2, 0.5]]))
    assert target.segment_map.shape == (1, 8, 12)
    assert (target.segment_map == VOID).all()


def test_valid_pixels__what_is_not_padding():
    samples = [DetDataSample(metainfo=dict(img_shape=shape)) for shape in ((2, 3), (1, 2))]
    valid = valid_pixels(samples, (2, 3), torch.zeros(1))
    assert valid.tolist() == [[[True] * 3] * 2, [[True, True, False], [False] * 3]]
    assert valid_pixels(samples[:1], (2, 3), torch.zeros(1)) is None


def test_read_segments_target__masks_that_nobody_padded():
    sample = make_sample([1], box_masks((0, 4, 0, 5)), img_shape=(8, 10), batch_input_shape=(9, 12))
    sample.gt_instances.masks = sample.gt_instances.masks.to_tensor(torch.bool, "cpu")
    sample.ignored_instances = InstanceData(labels=torch.tensor([0]), masks=box_masks((6, 8, 0, 2)))
    segment_map = read_segments_target(sample, IS_THING).segment_map[0]
    assert segment_map.shape == (9, 12)
    assert (segment_map[:4, :5] == 0).all()
    assert (segment_map[8] == VOID).all()
    assert (segment_map[6:8, :2] == CROWD).all()
    assert segment_map[7, 9] == BACKGROUND


def test_read_segments_target__a_semantic_map_that_nobody_padded():
    sample = make_sample([1], box_masks((0, 4, 0, 5)), img_shape=(8, 10), batch_input_shape=(9, 12))
    sample.gt_sem_seg = PixelData(sem_seg=torch.full((1, 8, 10), 2, dtype=torch.uint8))
    sample.gt_sem_seg.sem_seg[:, :4, :5] = 1
    target = read_segments_target(sample, IS_THING)
    assert target.labels.tolist() == [1, 2]
    assert (target.segment_map[0, 8] == VOID).all()
    assert (target.segment_map[0, :, 10:] == VOID).all()
    assert target.segment_map[0, 7, 9] == 1


@pytest.mark.parametrize("compact", [False, True])
def test_read_segments_targets__boxes_as_fractions_of_the_canvas(compact):
    """An image of 200 pixels on a canvas of 1024: the object over a half of it is 0.098 wide."""
    sample = DetDataSample(metainfo=dict(img_path="a.jpg", img_shape=(200, 100), batch_input_shape=(1024, 1024)))
    sample.gt_instances = InstanceData(labels=torch.tensor([3]), bboxes=torch.tensor([[0.0, 100.0, 100.0, 200.0]]))
    if compact:
        segment_map = torch.zeros(1, 200, 100, dtype=torch.int16)
        boxes = torch.tensor([[0.5, 0.75, 1.0, 0.5]])
        sample.gt_segments = BaseDataElement(labels=torch.tensor([3]), segment_map=segment_map, boxes=boxes)
        sample.set_metainfo(dict(segment_labels=(3,)))
    found = read_segments_targets([sample], IS_THING, with_boxes=True, box_frame="canvas")
    expected = torch.tensor([[[50.0, 150.0, 100.0, 100.0]]]) / 1024
    torch.testing.assert_close(found.boxes, expected)
    as_image = read_segments_targets([sample], IS_THING, with_boxes=True)
    torch.testing.assert_close(as_image.boxes, torch.tensor([[[0.5, 0.75, 1.0, 0.5]]]))
