import math
from itertools import permutations

import numpy as np
import pytest
from mmengine.evaluator import Evaluator

from mmseg_m2f.evaluation import ObjectMatching
from mmseg_m2f.evaluation.object_matching import match_best
from tests.evaluation.object_samples import Detection, Object, bar, object_sample

CLASSES = ("cell", "debris", "ghost")
CELL, DEBRIS, GHOST = 0, 1, 2
LINE = (1, 20)
PERCENT = range(50, 95, 5)


def metric(**options: float) -> ObjectMatching:
    built = ObjectMatching(**options)
    built.dataset_meta = dict(classes=CLASSES)
    return built


def evaluate(*samples: dict, **options: float) -> dict[str, float]:
    built = metric(**options)
    built.process({}, samples)
    return built.evaluate(size=len(samples))


def line(detections: list[Detection], objects: list[Object], crowds: list[Object] = ()) -> dict:
    return object_sample(detections, objects, crowds, size=LINE)


def test_object_matching__hand_worked() -> None:
    # One cell whole, one with IoU 6/8, one missed, one detection too many.
    metrics = evaluate(
        line(
            [(CELL, 0.9, bar(0, 4)), (CELL, 0.8, bar(4, 10)), (CELL, 0.7, bar(18, 20))],
            [(CELL, bar(0, 4)), (CELL, bar(4, 12)), (CELL, bar(14, 18))],
        )
    )
    expected = {f"matching_AP{percent}": 2 / 4 if percent <= 75 else 1 / 5 for percent in PERCENT}
    expected |= dict(matching_precision=2 / 3, matching_recall=2 / 3, matching_F1=2 / 3, matching_IoU=7 / 8)
    expected |= dict(matching_recall_middle=2 / 3)  # in an image of one row nothing is near the border
    assert metrics == pytest.approx(expected | {"matching_AP50.cell": 0.5}, abs=1e-12)


def test_object_matching__middle_and_border() -> None:
    def square(top: int, left: int) -> np.ndarray:
        mask = np.zeros((16, 32), dtype=bool)
        mask[top : top + 2, left : left + 2] = True
        return mask

    # Centres 4 and 5 pixels from the border; a quarter of the shorter side is 4.
    places = [square(3, 20), square(4, 10), square(8, 20), square(0, 0)]
    sample = object_sample(
        [(CELL, 0.9, places[0]), (CELL, 0.9, places[1])], [(CELL, mask) for mask in places], size=(16, 32)
    )
    crowd = object_sample([], [(CELL, square(0, 0))], [(CELL, square(8, 8))], size=(16, 32))
    metrics = evaluate(sample, crowd)
    assert metrics["matching_recall_middle"] == 1 / 2
    assert metrics["matching_recall_border"] == 1 / 3


def test_object_matching__pools_counts_over_images_and_classes() -> None:
    three = line([(CELL, 0.9, bar(0, 4)), (CELL, 0.9, bar(4, 8)), (DEBRIS, 0.9, bar(8, 12))], [
        (CELL, bar(0, 4)), (CELL, bar(4, 8)), (DEBRIS, bar(8, 12))])  # fmt: skip
    none = line([], [(DEBRIS, bar(0, 4))])
    metrics = evaluate(three, none)
    assert (metrics["matching_AP50"], metrics["matching_recall"]) == (3 / 4, 3 / 4)
    assert (metrics["matching_AP50.cell"], metrics["matching_AP50.debris"]) == (1.0, 0.5)
    assert "matching_AP50.ghost" not in metrics


def test_object_matching__score_must_be_above_the_threshold() -> None:
    given = line([(CELL, 0.5, bar(0, 4)), (CELL, 0.75, bar(8, 12))], [(CELL, bar(0, 4)), (CELL, bar(8, 12))])
    assert evaluate(given)["matching_AP50"] == 0.5
    assert evaluate(given, score_threshold=0.4)["matching_AP50"] == 1.0


def test_object_matching__objects_of_other_classes_do_not_match() -> None:
    metrics = evaluate(line([(DEBRIS, 0.9, bar(0, 4))], [(CELL, bar(0, 4))]))
    assert (metrics["matching_precision"], metrics["matching_recall"], metrics["matching_IoU"]) == (0.0, 0.0, 0.0)
    assert (metrics["matching_AP50.cell"], metrics["matching_AP50.debris"]) == (0.0, 0.0)


def test_object_matching__crowd_excuses_its_own_class() -> None:
    crowd = [(CELL, bar(10, 20))]
    cell, found = [(CELL, bar(0, 4))], (CELL, 0.9, bar(0, 4))
    assert evaluate(line([found, (CELL, 0.9, bar(9, 12))], cell, crowd))["matching_AP50"] == 1.0
    assert evaluate(line([found, (CELL, 0.9, bar(8, 12))], cell, crowd))["matching_AP50"] == 0.5  # half is too little
    assert evaluate(line([found, (DEBRIS, 0.9, bar(10, 12))], cell, crowd))["matching_AP50"] == 0.5


def test_match_best__more_pairs_before_better_ones() -> None:
    # Two pairs of 0.95 sum to more than three of 0.5, but leave one detection alone.
    ious = np.array([[0.5, 0.95, 0.0], [0.0, 0.5, 0.95], [0.0, 0.0, 0.5]])
    assert [indices.tolist() for indices in match_best(ious, 0.5)] == [[0, 1, 2], [0, 1, 2]]
    assert [indices.tolist() for indices in match_best(ious, 0.6)] == [[0, 1], [1, 2]]


def test_match_best__better_pairs_of_as_many() -> None:
    ious = np.array([[0.6, 0.9], [0.9, 0.7]])
    assert [indices.tolist() for indices in match_best(ious, 0.5)] == [[0, 1], [1, 0]]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_match_best__nothing(shape: tuple[int, int]) -> None:
    assert [len(indices) for indices in match_best(np.zeros(shape), 0.5)] == [0, 0]


def best_by_trying_all(ious: np.ndarray, threshold: float) -> tuple[int, float]:
    """Most pairs, then the largest sum, over every way to give each row a column of its own or none."""
    rows, columns = ious.shape
    padded = np.pad(ious, ((0, 0), (0, rows)), constant_values=-1.0)
    choices = (padded[range(rows), order] for order in permutations(range(columns + rows), rows))
    return max((int((chosen >= threshold).sum()), chosen[chosen >= threshold].sum()) for chosen in choices)


@pytest.mark.parametrize("seed", range(6))
def test_object_matching__equals_trying_all_pairings(seed: int) -> None:
    draw = np.random.default_rng(seed)
    matched, wrong, missed, iou_sum, samples = np.zeros(9), np.zeros(9), np.zeros(9), 0.0, []
    for _ in range(3):
        starts = draw.integers(0, 12, 3)
        objects = [(CELL, bar(start, start + draw.integers(4, 9))) for start in starts]
        detections = [(CELL, 0.9, bar(s + draw.integers(2), s + draw.integers(4, 9))) for s in [*starts, starts[0]]]
        samples.append(line(detections, objects))
        ious = np.array([[(d & o).sum() / (d | o).sum() for _, o in objects] for _, _, d in detections])
        for t, percent in enumerate(PERCENT):
            pairs, iou = best_by_trying_all(ious, percent / 100)
            matched[t] += pairs
            wrong[t] += len(detections) - pairs
            missed[t] += len(objects) - pairs
            iou_sum += iou if t == 0 else 0.0
    metrics = evaluate(*samples)
    accuracy = matched / (matched + wrong + missed)
    assert accuracy[-1] < accuracy[0] < 1
    assert [metrics[f"matching_AP{percent}"] for percent in PERCENT] == pytest.approx(accuracy.tolist(), abs=1e-12)
    assert metrics["matching_precision"] == pytest.approx(matched[0] / (matched[0] + wrong[0]), abs=1e-12)
    assert metrics["matching_recall"] == pytest.approx(matched[0] / (matched[0] + missed[0]), abs=1e-12)
    assert metrics["matching_IoU"] == pytest.approx(iou_sum / matched[0], abs=1e-12)


def test_object_matching__image_without_objects_counts_what_is_wrong() -> None:
    found = line([(CELL, 0.9, bar(0, 4))], [(CELL, bar(0, 4))])
    assert evaluate(found, line([], []))["matching_AP50"] == 1.0
    assert evaluate(found, line([(CELL, 0.9, bar(0, 4))], []))["matching_AP50"] == 0.5


def test_object_matching__reads_what_an_evaluator_passes() -> None:
    evaluator = Evaluator(dict(type="mmseg_m2f.ObjectMatching", score_threshold=0.3))
    evaluator.dataset_meta = dict(classes=CLASSES)
    evaluator.process([line([(CELL, 0.4, bar(0, 4))], [(CELL, bar(0, 4))])])
    assert evaluator.evaluate(1)["matching_F1"] == 1.0


def test_object_matching__drops_samples_a_distributed_run_saw_twice() -> None:
    built = metric()
    built.process({}, [line([(CELL, 0.9, bar(start, 4))], [(CELL, bar(0, 4))]) for start in (0, 3)])
    assert len(built.results) == 2
    assert built.evaluate(size=1)["matching_AP50"] == 1.0


def test_object_matching__no_object_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"ObjectMatching: expected objects in the truth, got 1 images without any"):
        evaluate(line([(CELL, 0.9, bar(0, 4))], []))


def test_object_matching__missing_field_says_so() -> None:
    given = line([], [])
    del given["pred_instances"]
    with pytest.raises(
        ValueError, match=r"ObjectMatching, a/b\.png: expected 'pred_instances' with .* Evaluate a Mask"
    ):
        evaluate(given)


def test_object_matching__dataset_without_classes_says_so() -> None:
    with pytest.raises(ValueError, match="ObjectMatching: expected class names in the dataset's metainfo"):
        ObjectMatching().process({}, [])


def test_object_matching__logs_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("mmseg_m2f.evaluation.metric_report.print_log", lambda text, logger: lines.append(text))
    metrics = evaluate(line([(CELL, 0.9, bar(0, 6)), (CELL, 0.9, bar(18, 20))], [(CELL, bar(0, 10))]))
    table = lines[0].splitlines()
    assert table[2].split() == ["cell", "0.5000", "0.0000", "1", "1", "0"]
    assert table[4].split() == ["ghost", "-", "-", "0", "0", "0"]
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())
