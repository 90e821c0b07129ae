import math

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.evaluator import Evaluator
from mmengine.registry import METRICS
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor

from mmseg_m2f.evaluation import SemanticIoU
from mmseg_m2f.evaluation.semantic_iou import count_pixels
from tests.evaluation.object_samples import looped_boundary, rectangle

CLASSES = ("road", "tree", "sky")


def sample(prediction: Tensor, truth: Tensor, *, path: str = "a/b.png") -> dict:
    return dict(pred_sem_seg=dict(data=prediction), gt_sem_seg=dict(data=truth), img_path=path)


def metric(classes: tuple[str, ...] = CLASSES, *, boundary: bool = False) -> SemanticIoU:
    built = SemanticIoU(boundary=boundary)
    built.dataset_meta = dict(classes=classes)
    return built


def evaluate(*samples: dict, boundary: bool = False) -> dict[str, float]:
    built = metric(boundary=boundary)
    built.process({}, samples)
    return built.evaluate(size=len(samples))


def test_semantic_iou__equals_the_hand_worked_example() -> None:
    truth = torch.tensor([[[0, 0, 0, 1], [1, 1, 255, 255]]])
    prediction = torch.tensor([[[0, 0, 1, 1], [1, 0, 0, 2]]])
    metrics = evaluate(sample(prediction, truth))
    # road: 2 hits, 1 missed, 1 wrong; tree: 2 hits, 1 missed, 1 wrong; sky: only predicted on void
    assert metrics == pytest.approx(
        {"mIoU": 0.5, "aAcc": 4 / 6, "mAcc": 2 / 3, "IoU.road": 0.5, "IoU.tree": 0.5}, abs=1e-12
    )


def test_semantic_iou__class_only_predicted_counts_for_iou_not_for_accuracy() -> None:
    metrics = evaluate(sample(torch.tensor([[0, 2]]), torch.tensor([[0, 0]])))
    assert metrics["IoU.sky"] == 0.0
    assert metrics["mIoU"] == 0.25  # mean of 1/2 and 0
    assert metrics["mAcc"] == 0.5


def test_semantic_iou__agrees_with_mmseg() -> None:
    generator = torch.Generator().manual_seed(0)
    classes = tuple(f"c{i}" for i in range(7))
    reference = METRICS.build(dict(type="mmseg.IoUMetric"))
    reference.dataset_meta = dict(classes=classes)
    ours = metric(classes)
    for size in ((20, 30), (33, 17), (8, 8)):
        truth = torch.randint(0, 6, (1, *size), generator=generator)
        prediction = torch.where(torch.rand(1, *size, generator=generator) < 0.6, truth, 4)
        truth[torch.rand(1, *size, generator=generator) < 0.1] = 255
        for built in (reference, ours):
            built.process({}, [sample(prediction, truth)])
    expected, got = reference.evaluate(size=3), ours.evaluate(size=3)
    for name in ("mIoU", "aAcc", "mAcc"):  # mmseg rounds to hundredths of a percent
        assert got[name] * 100 == pytest.approx(expected[name], abs=0.0051)


def test_semantic_iou__reads_what_an_evaluator_passes() -> None:
    element = BaseDataElement(metainfo=dict(img_path="x.png"))
    element.pred_sem_seg = PixelData(data=torch.zeros(1, 2, 2, dtype=torch.long))
    element.gt_sem_seg = PixelData(data=torch.zeros(1, 2, 2, dtype=torch.long))
    evaluator = Evaluator(dict(type="mmseg_m2f.SemanticIoU"))
    evaluator.dataset_meta = dict(classes=CLASSES)
    evaluator.process([element])
    assert evaluator.evaluate(1)["mIoU"] == 1.0


def detector_sample(prediction: list, truth: list, masks: list, labels: list[int]) -> dict:
    """As mmdet packs it and a `MaskDetector` fills it."""
    element = DetDataSample(metainfo=dict(img_path="a/b.png"))
    element.pred_sem_seg = PixelData(sem_seg=torch.tensor([prediction]))
    element.gt_sem_seg = PixelData(sem_seg=torch.tensor([truth], dtype=torch.uint8))
    stacked = BitmapMasks(np.array(masks, dtype=np.uint8).reshape(-1, 1, len(truth[0])), 1, len(truth[0]))
    element.gt_instances = InstanceData(labels=torch.tensor(labels, dtype=torch.long), masks=stacked)
    element.ignored_instances = InstanceData()
    return element.to_dict()


def test_semantic_iou__objects_win_over_a_map_of_stuff() -> None:
    # Two trees stand on road and void; where they overlap, both are trees or the first wins.
    trees = [[[0, 0, 1, 1, 0, 0]], [[0, 0, 0, 1, 1, 0]]]
    assert evaluate(detector_sample([[0, 0, 1, 1, 1, 2]], [[0, 0, 0, 0, 255, 255]], trees, [1, 1])) == pytest.approx(
        {"mIoU": 1.0, "aAcc": 1.0, "mAcc": 1.0, "IoU.road": 1.0, "IoU.tree": 1.0}
    )
    metrics = evaluate(detector_sample([[0, 0, 1, 1, 2, 0]], [[0, 0, 0, 0, 255, 255]], trees, [1, 2]))
    assert (metrics["IoU.tree"], metrics["IoU.sky"], metrics["aAcc"]) == (1.0, 1.0, 1.0)


def test_semantic_iou__map_of_stuff_without_objects() -> None:
    metrics = evaluate(detector_sample([[0, 0, 2]], [[0, 2, 2]], [], []))
    assert (metrics["IoU.road"], metrics["IoU.sky"]) == (0.5, 0.5)


def test_semantic_iou__objects_do_not_change_a_complete_map() -> None:
    prediction, truth = [[1, 0, 0, 0]], [[1, 1, 0, 0]]
    given = detector_sample(prediction, truth, [truth], [1])
    assert evaluate(given) == evaluate(sample(torch.tensor(prediction), torch.tensor(truth)))


def test_semantic_iou__object_out_of_range_names_the_sample() -> None:
    with pytest.raises(ValueError, match=r"a/b\.png: expected every label in 0\.\.\.2.*got 3\."):
        evaluate(detector_sample([[0, 0]], [[0, 0]], [[[1, 0]]], [3]))


def test_semantic_iou__boundary_of_a_narrow_class() -> None:
    # Tree: ten columns of which one is missed: rings of 36 and 34 pixels that share 26 of 44.
    size = (20, 30)
    truth, found = (torch.from_numpy(rectangle(4, 5, 10, width, size=size)).long() for width in (10, 9))
    metrics = evaluate(sample(found, truth), boundary=True)
    # Road: the ring around the tree is broad by one, the frame of the image too; diagonal neighbours count.
    rings = [looped_boundary((label_map == 0).numpy(), 1) for label_map in (truth, found)]
    road = (rings[0] & rings[1]).sum() / (rings[0] | rings[1]).sum()
    assert metrics == pytest.approx(
        {"boundary_mIoU": (road + 26 / 44) / 2, "boundary_IoU.road": road, "boundary_IoU.tree": 26 / 44}, abs=1e-12
    )


def test_semantic_iou__boundary_equals_loops_over_classes() -> None:
    draw = np.random.default_rng(0)
    common, union, samples = np.zeros(3), np.zeros(3), []
    for _ in range(3):
        truth = np.kron(draw.choice([0, 1, 2, 255], (4, 5)), np.ones((5, 6), int))
        prediction = np.where(truth == 255, draw.integers(3), np.roll(truth, 1, 1) % 255)
        samples.append(sample(torch.from_numpy(prediction), torch.from_numpy(truth)))
        known = truth != 255
        for label in range(3):
            true, found = (looped_boundary((m == label) & known, 1) for m in (truth, prediction))
            common[label] += (true & found).sum()
            union[label] += (true | found).sum()
    metrics = evaluate(*samples, boundary=True)
    assert 0 < metrics["boundary_mIoU"] < evaluate(*samples)["mIoU"] < 1
    assert [metrics[f"boundary_IoU.{name}"] for name in CLASSES] == pytest.approx((common / union).tolist(), abs=1e-12)


def test_semantic_iou__boundary_ignores_what_lies_on_void() -> None:
    truth = torch.zeros(8, 8, dtype=torch.long)
    truth[:, 4:] = 255
    perfect = {"boundary_mIoU": 1.0, "boundary_IoU.road": 1.0}
    for on_void in (0, 1):
        assert evaluate(sample(truth.where(truth != 255, on_void), truth), boundary=True) == perfect


def test_semantic_iou__drops_samples_a_distributed_run_saw_twice() -> None:
    right, wrong = torch.zeros(1, 4, 4, dtype=torch.long), torch.ones(1, 4, 4, dtype=torch.long)
    built = metric()
    built.process({}, [sample(right, right), sample(wrong, right)])
    assert built.evaluate(size=1)["mIoU"] == 1.0


def test_semantic_iou__entry_does_not_grow_with_the_image() -> None:
    truth = torch.zeros(512, 512, dtype=torch.long)
    truth[:, 256:] = 149
    entry = count_pixels(truth, truth, num_classes=150, ignore_index=255, where="x")
    assert entry.cells.tolist() == [0, 149 * 151]
    assert entry.counts.tolist() == [512 * 256, 512 * 256]


def test_semantic_iou__image_of_void_alone_changes_nothing() -> None:
    truth = torch.tensor([[0, 1]])
    alone = evaluate(sample(truth, truth))
    void = sample(truth, torch.full_like(truth, 255))
    assert evaluate(sample(truth, truth), void) == alone


def test_semantic_iou__nothing_but_void_is_an_error() -> None:
    truth = torch.full((2, 2), 255)
    with pytest.raises(ValueError, match=r"expected labelled pixels, got 1 images without any.*Check the label"):
        evaluate(sample(torch.zeros_like(truth), truth))


def test_semantic_iou__other_size_names_the_sample() -> None:
    with pytest.raises(
        ValueError, match=r"a/b\.png: expected a prediction of the annotation's size \(2, 3\), got \(2, 2\)"
    ):
        evaluate(sample(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3)))


@pytest.mark.parametrize(("truth", "prediction", "what"), [(3, 0, "label"), (0, 7, "predicted class"), (0, -1, "pred")])
def test_semantic_iou__value_out_of_range_names_the_sample(truth: int, prediction: int, what: str) -> None:
    wrong = max(truth, prediction) or prediction
    with pytest.raises(ValueError, match=rf"a/b\.png: expected every {what}.* in 0\.\.\.2.*got {wrong}\."):
        evaluate(sample(torch.tensor([[0, prediction]]), torch.tensor([[0, truth]])))


def test_semantic_iou__sample_without_prediction_says_so() -> None:
    with pytest.raises(ValueError, match="expected 'pred_sem_seg' in the sample"):
        evaluate(dict(gt_sem_seg=dict(data=torch.zeros(1, 2, 2)), img_path="a.png"))


def test_semantic_iou__dataset_without_classes_says_so() -> None:
    built = SemanticIoU()
    with pytest.raises(ValueError, match="expected class names in the dataset's metainfo"):
        built.process({}, [])


def test_semantic_iou__logs_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("mmseg_m2f.evaluation.metric_report.print_log", lambda text, logger: lines.append(text))
    evaluate(sample(torch.tensor([[0, 0, 1, 0]]), torch.tensor([[0, 0, 1, 1]])))
    table = lines[0].splitlines()
    assert table[2].split() == ["road", "0.6667", "1.0000", "50.0%"]
    assert table[4].split() == ["sky", "-", "-", "0.0%"]


def test_semantic_iou__figures_are_plain_numbers() -> None:
    metrics = evaluate(sample(torch.tensor([[0, 1]]), torch.tensor([[0, 1]])))
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())
