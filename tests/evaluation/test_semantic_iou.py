import math

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import METRICS
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor

from mmseg_m2f.evaluation import SemanticIoU
from mmseg_m2f.evaluation.semantic_iou import count_pixels

CLASSES = ("road", "tree", "sky")


def sample(prediction: Tensor, truth: Tensor, *, path: str = "a/b.png") -> dict:
    return dict(pred_sem_seg=dict(data=prediction), gt_sem_seg=dict(data=truth), img_path=path)


def metric(classes: tuple[str, ...] = CLASSES) -> SemanticIoU:
    built = SemanticIoU()
    built.dataset_meta = dict(classes=classes)
    return built


def evaluate(*samples: dict) -> dict[str, float]:
    built = metric()
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


def test_semantic_iou__drops_samples_a_distributed_run_saw_twice() -> None:
    right, wrong = torch.zeros(1, 4, 4, dtype=torch.long), torch.ones(1, 4, 4, dtype=torch.long)
    built = metric()
    built.process({}, [sample(right, right), sample(wrong, right)])
    assert built.evaluate(size=1)["mIoU"] == 1.0


def test_semantic_iou__entry_does_not_grow_with_the_image() -> None:
    truth = torch.zeros(512, 512, dtype=torch.long)
    truth[:, 256:] = 149
    entry = count_pixels(truth, truth, num_classes=150, ignore_index=255, name="x")
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
    with pytest.raises(ValueError, match=r"a/b\.png: expected a prediction of the label's size \(2, 3\), got \(2, 2\)"):
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
    monkeypatch.setattr("mmseg_m2f.evaluation.semantic_iou.print_log", lambda text, logger: lines.append(text))
    evaluate(sample(torch.tensor([[0, 0, 1, 0]]), torch.tensor([[0, 0, 1, 1]])))
    table = lines[0].splitlines()
    assert table[2].split() == ["road", "0.6667", "1.0000", "50.0%"]
    assert table[4].split() == ["sky", "-", "-", "0.0%"]


def test_semantic_iou__figures_are_plain_numbers() -> None:
    metrics = evaluate(sample(torch.tensor([[0, 1]]), torch.tensor([[0, 1]])))
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())
