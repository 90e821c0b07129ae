import torch

from mmseg_m2f.benchmark.made_samples import make_object_samples
from mmseg_m2f.core.boxes import to_corners


def test_make_object_samples__by_hand():
    label_map = torch.tensor([[7, 7, 2, 2], [7, 4, 4, 2]])
    (sample,) = make_object_samples(label_map[None], [(2, 4, 7)])
    assert sample.gt_instances.labels.tolist() == [2, 4, 7]
    assert sample.gt_instances.bboxes.tolist() == [[2, 0, 4, 2], [1, 1, 3, 2], [0, 0, 2, 2]]
    assert sample.gt_segments.segment_map.tolist() == [[[2, 2, 0, 0], [2, 1, 1, 0]]]
    assert sample.gt_segments.labels.tolist() == [2, 4, 7]
    assert sample.segment_labels == (2, 4, 7)
    assert sample.img_shape == sample.batch_input_shape == (2, 4)
    corners = to_corners(sample.gt_segments.boxes) * torch.tensor([4, 2, 4, 2])
    torch.testing.assert_close(corners, sample.gt_instances.bboxes)
