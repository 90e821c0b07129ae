"""Matching, losses and their gradients take the same number of operators whatever the batch."""

from collections.abc import Sequence

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_m2f.models.query_decoders.detr_mask_head import DetrMaskHead
from mmseg_m2f.samples import read_segments_targets, read_targets
from mmseg_m2f.structures import BoxPrediction, MaskPrediction, PixelFeatures, PixelSpec, Prediction, TargetBatch
from tests.models.assigners.test_fixed import CRITERION as FIXED
from tests.models.conftest import CONFIGS, make_sample
from tests.operator_counts import OperatorCount

NUM_CLASSES, NUM_LAYERS, SIZE = 48, 3, 64
POINTS = dict(type="mmseg_m2f.PointSampling", num_points=64)
EVERYWHERE = dict(type="mmseg_m2f.FullMaskSampling")


def criterion_of(model: str, **options: object) -> nn.Module:
    cfg = Config.fromfile(CONFIGS / f"_base_/models/{model}.py").model.decode_head.criterion
    cfg.update(options)
    return MODELS.build(cfg)


def mask_predictions(batch: int) -> list[MaskPrediction]:
    features = torch.randn(batch, 8, SIZE // 4, SIZE // 4, requires_grad=True)
    return [
        MaskPrediction(
            torch.randn(batch, NUM_CLASSES, NUM_CLASSES + 1, requires_grad=True),
            torch.randn(batch, NUM_CLASSES, 8, requires_grad=True),
            features,
        )
        for _ in range(NUM_LAYERS)
    ]


def box_predictions(batch: int, *, masks: bool) -> list[BoxPrediction]:
    """DETR's, of which the last has masks at stride 4."""
    predictions = [
        BoxPrediction(
            torch.randn(batch, NUM_CLASSES, NUM_CLASSES + 1, requires_grad=True),
            torch.rand(batch, NUM_CLASSES, 4, requires_grad=True),
        )
        for _ in range(NUM_LAYERS)
    ]
    if masks:
        head = DetrMaskHead(PixelSpec(128, (8, 8, 8), 128))
        levels = tuple(torch.randn(batch, 8, side, side) for side in (4, 8, 16))
        memory = torch.randn(batch, 128, 2, 2)
        lazy = head(torch.randn(batch, NUM_CLASSES, 128), PixelFeatures(memory, levels, memory))
        predictions[-1] = predictions[-1]._replace(masks=lazy)
    return predictions


def semantic_samples(batch: int, num_segments: int) -> list[SegDataSample]:
    """Vertical stripes of as many classes, fewer in the last image."""
    stripes = torch.arange(SIZE) * num_segments // SIZE
    samples = [make_sample(stripes.expand(SIZE, -1).clone()) for _ in range(batch)]
    samples[-1].gt_sem_seg.data[..., : SIZE // 2] = 255
    for sample in samples:
        sample.set_metainfo(dict(present_classes=tuple(sample.gt_sem_seg.data.unique().tolist())))
    return samples


def semantic_targets(batch: int, num_segments: int) -> TargetBatch:
    return read_targets(semantic_samples(batch, num_segments), NUM_CLASSES)


def instance_samples(batch: int, num_segments: int) -> list[DetDataSample]:
    """As `CompactSegments` leaves them: images of different sizes and numbers of objects."""
    samples = []
    for index in range(batch):
        side, count = SIZE - index, num_segments - index % 2
        labels = torch.arange(count)
        segments = BaseDataElement(
            labels=labels,
            segment_map=(torch.arange(side) * count // side).expand(1, side, -1).short(),
            boxes=torch.rand(count, 4),
        )
        metainfo = dict(img_shape=(side, side), batch_input_shape=(SIZE, SIZE), segment_labels=tuple(labels.tolist()))
        samples.append(DetDataSample(metainfo=metainfo))
        samples[-1].gt_segments = segments
    return samples


def instance_targets(batch: int, num_segments: int) -> TargetBatch:
    return read_segments_targets(instance_samples(batch, num_segments), torch.ones(NUM_CLASSES, dtype=torch.bool))


def count_step(criterion: nn.Module, predictions: Sequence[Prediction], targets: TargetBatch) -> int:
    leaves = [part for each in predictions for part in each if isinstance(part, torch.Tensor)]
    with OperatorCount() as counted:
        losses = criterion(predictions, targets)
        total = sum(value for name, value in losses.items() if "loss" in name)
        torch.autograd.grad(total, leaves, allow_unused=True)
    return counted.operators


METHODS = {
    "points": (lambda: criterion_of("mask2former", sampling=POINTS), mask_predictions),
    "points, void as background": (
        lambda: criterion_of("mask2former", sampling=POINTS, void_is_background=True),
        mask_predictions,
    ),
    "everywhere": (lambda: criterion_of("maskformer"), mask_predictions),
    "fixed assignment": (lambda: MODELS.build(FIXED), mask_predictions),
    "boxes": (lambda: criterion_of("detr"), lambda batch: box_predictions(batch, masks=False)),
    "boxes and masks": (lambda: criterion_of("detr_panoptic"), lambda batch: box_predictions(batch, masks=True)),
}


SEMANTIC = [(method, semantic_targets) for method in METHODS if "boxes" not in method]  # label maps have no boxes
INSTANCES = [(method, instance_targets) for method in METHODS]


@pytest.mark.parametrize(("method", "targets_of"), SEMANTIC + INSTANCES)
def test_criterion__operators_grow_with_neither_images_nor_objects(method, targets_of):
    build, predictions_of = METHODS[method]
    criterion = build()
    counts = {
        (batch, objects): count_step(criterion, predictions_of(batch), targets_of(batch, objects))
        for batch, objects in ((2, 10), (16, 10), (2, 40))
    }
    assert counts[16, 10] <= 1.1 * counts[2, 10]
    assert counts[2, 40] <= 1.1 * counts[2, 10]
    assert counts[2, 10] < 600


def test_criterion__operators_without_compiled_kernels(monkeypatch):
    monkeypatch.setenv("MMSEG_M2F_KERNELS", "off")
    criterion = criterion_of("mask2former", sampling=POINTS)
    few, many = (count_step(criterion, mask_predictions(b), semantic_targets(b, 10)) for b in (2, 16))
    assert many <= 1.1 * few


def test_read_targets__operators_do_not_grow():
    counts = []
    for batch, objects in ((2, 10), (16, 40)):
        samples = semantic_samples(batch, objects)
        with OperatorCount() as counted:
            read_targets(samples, NUM_CLASSES)
        counts.append(counted.operators)
    assert counts[0] == counts[1]


def test_read_segments_targets__three_operators_per_image():
    counts = []
    for batch in (2, 16):
        samples = instance_samples(batch, 10)
        with OperatorCount() as counted:
            read_segments_targets(samples, torch.ones(NUM_CLASSES, dtype=torch.bool))
        counts.append(counted.operators)
    assert counts[1] - counts[0] == 3 * 14
