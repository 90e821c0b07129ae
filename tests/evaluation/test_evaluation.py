"""All metrics together, as configs of either framework name them."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData

from mmseg_m2f.core.confidence import Certainty
from mmseg_m2f.core.postprocess import INSTANCE_OFFSET
from mmseg_m2f.datasets import GeneratedShapes
from mmseg_m2f.samples import write_certainty, write_panoptic

THINGS = [3, 4, 5, 6, 7]
NAMES = ("PanopticQuality", "MaskAP", "ObjectMatching", "SemanticIoU", "PixelCalibration", "ObjectCalibration")
WITH_BOUNDARY = ("PanopticQuality", "MaskAP", "SemanticIoU")


@pytest.fixture(params=["mmseg", "mmdet"])
def scope(request: pytest.FixtureRequest) -> Iterator[str]:
    with DefaultScope.overwrite_default_scope(request.param):
        yield request.param


def test_metrics__report_together_in_configs_of_either_framework(scope: str) -> None:
    configs = [
        dict(type=f"mmseg_m2f.{name}", **options) | (dict(thing_classes=THINGS) if name == "PanopticQuality" else {})
        for name in NAMES
        for options in ([{}, dict(boundary=True)] if name in WITH_BOUNDARY else [{}])
    ]
    evaluator = Evaluator(configs)
    dataset = GeneratedShapes(
        4,
        segments=True,
        pipeline=[
            dict(type="mmseg_m2f.SegmentsToObjects"),
            dict(type="mmdet.PackDetInputs", meta_keys=("img_path", "ori_shape", "img_shape")),
        ],
    )
    evaluator.dataset_meta = dataset.metainfo
    samples = [dataset[index]["data_samples"] for index in range(4)]
    for sample in samples:  # the truth as prediction
        things, semantic = sample.gt_instances, sample.gt_sem_seg.sem_seg.long()
        panoptic = torch.where(semantic == 255, len(dataset.metainfo["classes"]), semantic)[0]
        for number, mask in enumerate(things.masks, start=1):
            panoptic[mask] += number * INSTANCE_OFFSET
        write_panoptic(sample, panoptic)
        sample.pred_instances = InstanceData(
            labels=things.labels,
            scores=torch.ones(len(things.labels)),
            confidences=torch.ones(len(things.labels)),
            masks=things.masks,
        )
        size = semantic.shape[1:]
        write_certainty(sample, Certainty(torch.ones(size), torch.zeros(size)))
        sample.pred_sem_seg = PixelData(sem_seg=semantic)
    evaluator.process(samples)
    metrics = evaluator.evaluate(len(samples))
    main = ("PQ", "boundary_PQ", "AP", "boundary_AP", "matching_AP90", "mIoU", "boundary_mIoU")
    assert [metrics[name] for name in main] == [1.0] * len(main)
    worst = ("calibration_ECE", "calibration_AURC", "object_calibration_ECE", "object_calibration_AURC")
    assert [metrics[name] for name in worst] == [0.0] * len(worst)
    assert np.isfinite([*metrics.values()]).all()
