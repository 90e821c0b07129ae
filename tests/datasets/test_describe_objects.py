import numpy as np
import pytest
import torch
from pycocotools import mask as run_lengths

from mmseg_m2f.datasets import DescribeObjects

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


def sample() -> dict:
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[0, 1:3, 2:5] = True
    masks[1, 0, 0] = True
    return dict(
        gt_masks=masks,
        gt_bboxes_labels=np.array([1, 3]),
        gt_ignore_flags=np.array([False, True]),
        gt_seg_map=np.array([[0, 1, 3, 255]]),
        ori_shape=(9, 9),
        sample_idx=5,
    )


def test_describe_objects__masks_boxes_labels_and_crowds() -> None:
    results = DescribeObjects()(sample())
    first, second = results["instances"]
    assert (first["bbox"], first["bbox_label"], first["ignore_flag"]) == ([2, 1, 5, 3], 1, 0)
    assert (second["bbox"], second["bbox_label"], second["ignore_flag"]) == ([0, 0, 1, 1], 3, 1)
    np.testing.assert_array_equal(run_lengths.decode(first["mask"]), sample()["gt_masks"][0].numpy())
    assert (results["ori_shape"], results["img_id"], results["scale_factor"]) == ((4, 6), 5, (1.0, 1.0))


def test_describe_objects__in_the_order_of_the_model() -> None:
    results = DescribeObjects(class_order=[3, 1])(sample())
    assert [instance["bbox_label"] for instance in results["instances"]] == [1, 0]
    assert results["gt_seg_map"].tolist() == [[255, 1, 0, 255]]


def test_describe_objects__leaves_masks_of_mmdet_alone() -> None:
    assert "instances" not in DescribeObjects()(dict(gt_masks="mmdet's", img_id=7))
