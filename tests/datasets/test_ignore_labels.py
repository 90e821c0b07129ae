import numpy as np

from mmseg_m2f.datasets import IgnoreLabels


def test_ignore_labels__turns_the_given_values_into_void() -> None:
    labels = np.array([[0, 11], [12, 3]], dtype=np.uint8)
    results = IgnoreLabels(labels=[11, 12])(dict(gt_seg_map=labels, seg_fields=["gt_seg_map"]))
    assert results["gt_seg_map"].tolist() == [[0, 255], [255, 3]]
    assert results["gt_seg_map"].dtype == np.uint8
