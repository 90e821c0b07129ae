import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_m2f.datasets import ListClasses
from mmseg_m2f.samples import read_targets
from tests.host_reads import count


def sample_of(labels: list[list[int]]) -> SegDataSample:
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.tensor([labels])), metainfo=dict(img_path="a.jpg"))
    return ListClasses().transform(dict(data_samples=sample))["data_samples"]


def test_list_classes__spares_the_host_from_reading_the_map():
    sample = sample_of([[3, 255], [0, 3]])
    assert sample.present_classes == (0, 3, 255)
    with count() as counts:
        targets = read_targets([sample], 4)
    assert not counts.host_reads
    plain = read_targets([SegDataSample(gt_sem_seg=sample.gt_sem_seg)], 4)
    assert targets.labels.tolist() == plain.labels.tolist() == [[0, 3]]
    assert torch.equal(targets.segment_maps, plain.segment_maps)


def test_list_classes__a_wrong_label_is_still_named():
    with pytest.raises(ValueError, match=r"a.jpg: expected labels 0…2 or 255 \(ignored\), got \[3\]"):
        read_targets([sample_of([[3, 255], [0, 3]])], 3)
