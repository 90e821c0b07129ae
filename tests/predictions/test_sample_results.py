import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from mmseg_m2f.predictions import read_result, read_truth


def make_masks() -> torch.Tensor:
    masks = torch.zeros(2, 2, 3, dtype=torch.bool)
    masks[0, 0, :2] = masks[1, :, 1] = True
    return masks


def test_read_result__labels_of_mmseg_and_of_mmdet() -> None:
    labels = torch.tensor([[[0, 1, -1]]])
    of_mmseg = read_result(SegDataSample(pred_sem_seg=PixelData(data=labels)))
    of_mmdet = read_result(DetDataSample(pred_sem_seg=PixelData(sem_seg=labels)))
    for found in (of_mmseg, of_mmdet):
        assert found.kinds() == ["semantic"]
        assert found.size == (1, 3)
        assert found.semantic.tolist() == [[0, 1, 255]]


def test_read_result__objects_surest_first() -> None:
    sample = DetDataSample()
    sample.pred_panoptic_seg = PixelData(sem_seg=torch.tensor([[[5, 1001, 5], [5, 5, 5]]]))
    sample.pred_instances = InstanceData(
        labels=torch.tensor([1, 0]),
        scores=torch.tensor([0.25, 0.75], dtype=torch.bfloat16),
        bboxes=torch.tensor([[0.0, 0, 2, 1], [1, 0, 2, 2]]),
        masks=make_masks(),
    )
    found = read_result(sample)
    assert found.kinds() == ["panoptic", "instances"]
    assert found.panoptic.tolist() == [[5, 1001, 5], [5, 5, 5]]
    assert found.instances.scores.tolist() == [0.75, 0.25]
    assert found.instances.labels.tolist() == [0, 1]
    assert found.instances.boxes_px.tolist() == [[1, 0, 2, 2], [0, 0, 2, 1]]
    assert found.instances.masks[0].tolist() == [[False, True, False]] * 2


def test_read_result__boxes_alone_have_the_size_of_the_original_image() -> None:
    sample = DetDataSample(metainfo=dict(ori_shape=(7, 9), img_shape=(14, 18)))
    sample.pred_instances = InstanceData(
        labels=torch.tensor([1]), scores=torch.tensor([0.5]), bboxes=torch.tensor([[1.0, 2, 3, 4]])
    )
    found = read_result(sample)
    assert found.size == (7, 9)
    assert found.instances.masks is None


def test_read_result__sample_without_results() -> None:
    sample = DetDataSample(gt_sem_seg=PixelData(sem_seg=torch.zeros(1, 2, 2)), gt_instances=InstanceData())
    assert read_result(sample) is None


def test_read_truth__objects_stand_in_front_of_the_label_map() -> None:
    sample = DetDataSample()
    sample.gt_sem_seg = PixelData(sem_seg=torch.tensor([[[2, 2, 2], [2, 255, 255]]]))
    masks = BitmapMasks(make_masks().numpy().astype(np.uint8), 2, 3)
    sample.gt_instances = InstanceData(labels=torch.tensor([1, 0]), masks=masks)
    found = read_truth(sample, 3)
    # The first object is in front of the second; 3 is void.
    assert found.panoptic.tolist() == [[1001, 1001, 2], [2, 2000, 3]]
    assert found.semantic.tolist() == [[2, 2, 2], [2, 255, 255]]
    assert found.instances.scores.tolist() == [1, 1]
    assert found.instances.boxes_px.tolist() == [[0, 0, 2, 1], [1, 0, 2, 2]]


def test_read_truth__objects_without_label_map_or_any() -> None:
    sample = DetDataSample(gt_instances=InstanceData(labels=torch.tensor([0]), masks=make_masks()[:1]))
    assert read_truth(sample, 1).panoptic.tolist() == [[1000, 1000, 1], [1, 1, 1]]
    sample.gt_instances = InstanceData(labels=torch.empty(0, dtype=torch.long), masks=make_masks()[:0])
    empty = read_truth(sample, 1)
    assert empty.size == (2, 3)
    assert empty.instances.boxes_px.shape == (0, 4)
    assert (empty.panoptic == 1).all()


def test_read_truth__sample_without_annotation() -> None:
    assert read_truth(DetDataSample(gt_instances=InstanceData()), 1) is None


def test_read_result__confidences() -> None:
    sample = DetDataSample(pred_sem_seg=PixelData(sem_seg=torch.tensor([[[0, 1, 1]]])))
    sample.pred_certainty = PixelData(
        confidence=torch.tensor([[[0.5, 1, 0.25]]]), unknown=torch.tensor([[[0.5, 0, 0]]])
    )
    sample.pred_instances = InstanceData(
        labels=torch.tensor([1, 0]),
        scores=torch.tensor([0.25, 0.75]),
        confidences=torch.tensor([0.125, 0.5]),
        masks=make_masks(),
    )
    found = read_result(sample)
    assert found.confidence.tolist() == [[0.5, 1, 0.25]]
    assert found.unknown.tolist() == [[0.5, 0, 0]]
    assert found.instances.confidences.tolist() == [0.5, 0.125]  # the highest score first
    del sample.pred_certainty
    del sample.pred_instances.confidences
    found = read_result(sample)
    assert found.confidence is None
    assert found.instances.confidences is None
