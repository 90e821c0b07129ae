import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData

from mmseg_m2f.core.targets import read_paired_segments, read_segments, stack_targets
from mmseg_m2f.datasets import CompactSegments
from mmseg_m2f.samples import read_segments_target
from mmseg_m2f.structures import MaskTarget
from tests.host_reads import count

IS_THING = torch.tensor([True, True, False, False])
CANVAS = (12, 16)


def masks_of(*boxes: tuple[int, int, int, int]) -> BitmapMasks:
    """Masks of (top, bottom, left, right) on 8×10 pixels."""
    masks = np.zeros((len(boxes), 8, 10), np.uint8)
    for mask, (top, bottom, left, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return BitmapMasks(masks, 8, 10)


def make_sample(*, stuff: bool) -> DetDataSample:
    """Two objects that overlap, one that a crop emptied, a crowd, and stuff with void."""
    sample = DetDataSample(metainfo=dict(img_path="a.jpg", img_shape=(8, 10)))
    boxes = torch.tensor([[0.0, 0, 5, 5], [3, 3, 8, 8], [0, 0, 0, 0]])
    sample.gt_instances = InstanceData(
        labels=torch.tensor([0, 1, 1]),
        masks=masks_of((0, 5, 0, 5), (3, 8, 3, 8), (2, 2, 0, 0)),
        bboxes=HorizontalBoxes(boxes),
    )
    sample.ignored_instances = InstanceData(labels=torch.tensor([1]), masks=masks_of((0, 2, 7, 10)))
    if stuff:
        semantic = torch.full((1, 8, 10), 3)
        semantic[0, 6:, :2], semantic[0, :2, 7:] = 255, 1
        sample.gt_sem_seg = PixelData(sem_seg=semantic)
        sample.set_metainfo(dict(stuff_classes=(3,)))
    return sample


def on_canvas(sample: DetDataSample) -> DetDataSample:
    sample.set_metainfo(dict(batch_input_shape=CANVAS))
    return sample


def read_everywhere(target: MaskTarget) -> tuple[torch.Tensor, ...]:
    """Masks and what each segment knows, at points between the pixels of the canvas and beyond its border."""
    batch = stack_targets([target])
    points = torch.rand(1, 2000, 2, generator=torch.Generator().manual_seed(0))
    images = torch.zeros(target.num_segments, dtype=torch.long)
    masks, known = read_segments(batch.framed_maps, points, images[:1], target.num_segments)
    segments = torch.arange(target.num_segments)
    paired = read_paired_segments(
        batch.framed_maps, points.expand(target.num_segments, -1, -1), images, segments, target.labels
    )
    return (masks, known, *paired)


@pytest.mark.parametrize("stuff", [True, False], ids=["panoptic", "objects"])
def test_compact_segments__are_read_like_dense_masks(stuff: bool):
    dense = read_segments_target(on_canvas(make_sample(stuff=stuff)), IS_THING, with_boxes=True)
    compact = CompactSegments().transform(dict(data_samples=make_sample(stuff=stuff)))["data_samples"]
    with count() as counts:
        target = read_segments_target(on_canvas(compact), IS_THING, with_boxes=True)
    assert not counts.host_reads
    assert target.labels.tolist() == dense.labels.tolist() == [0, 1, 3][: 2 + stuff]
    assert torch.equal(target.boxes, dense.boxes)
    assert target.segment_map.shape == dense.segment_map.shape == (2 + stuff, *CANVAS)
    assert torch.equal(target.segment_map[0], dense.segment_map[0])
    for ours, theirs in zip(read_everywhere(target), read_everywhere(dense), strict=True):
        assert torch.equal(ours, theirs)


def test_compact_segments__leave_no_mask_to_move():
    sample = CompactSegments().transform(dict(data_samples=make_sample(stuff=True)))["data_samples"]
    assert "masks" not in sample.gt_instances
    assert "gt_sem_seg" not in sample
    assert "ignored_instances" not in sample
    assert sample.gt_segments.segment_map.dtype == torch.int16


def test_compact_segments__image_without_objects():
    sample = make_sample(stuff=False)
    sample.gt_instances = sample.gt_instances[2:]
    del sample.ignored_instances
    target = read_segments_target(
        CompactSegments().transform(dict(data_samples=sample))["data_samples"], torch.ones(4, dtype=torch.bool)
    )
    assert target.num_segments == 0
    assert target.segment_map.shape == (1, 8, 10)


def test_compact_segments__label_outside_the_classes():
    sample = CompactSegments().transform(dict(data_samples=make_sample(stuff=False)))["data_samples"]
    with pytest.raises(ValueError, match=r"a.jpg: expected labels 0…0, got \[1\]"):
        read_segments_target(sample, torch.ones(1, dtype=torch.bool))


def test_compact_segments__label_map_of_unknown_stuff():
    sample = make_sample(stuff=False)
    sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, 8, 10))
    with pytest.raises(ValueError, match=r"a.jpg: CompactSegments expected the stuff classes .*SegmentsToObjects"):
        CompactSegments().transform(dict(data_samples=sample))


def test_compact_segments__more_classes_than_a_label_map_holds():
    sample = make_sample(stuff=False)
    sample.gt_instances.labels = torch.tensor([1202, 1, 1])
    compact = CompactSegments().transform(dict(data_samples=sample))["data_samples"]
    assert read_segments_target(compact, torch.ones(1203, dtype=torch.bool)).labels.tolist() == [1202, 1]
