import math

import cv2
import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmseg_m2f.evaluation import MaskAP
from mmseg_m2f.evaluation.mask_ap import interpolated_precision, match_greedily
from tests.evaluation.object_samples import Detection, Object, bar, object_sample, rectangle

CLASSES = ("cat", "dog", "cow", "owl")  # nowhere an owl
CAT, DOG, COW = 0, 1, 2
LINE = (1, 20)
SIZE = (144, 160)  # room for objects above 96²

Image = tuple[list[Detection], list[Object], list[Object]]


def metric(**options: object) -> MaskAP:
    built = MaskAP(**options)
    built.dataset_meta = dict(classes=CLASSES)
    return built


def evaluate(*samples: dict, **options: object) -> dict[str, float]:
    built = metric(**options)
    built.process({}, samples)
    return built.evaluate(size=len(samples))


def line(detections: list[Detection], objects: list[Object], crowds: list[Object] = (), **options: str) -> dict:
    return object_sample(detections, objects, crowds, size=LINE, **options)


def test_mask_ap__hand_worked_curve() -> None:
    # Hit, wrong, hit of two: precision 1 up to recall 1/2 (51 of 101 points), 2/3 after.
    metrics = evaluate(
        line(
            [(CAT, 0.9, bar(0, 4)), (CAT, 0.8, bar(8, 12)), (CAT, 0.7, bar(4, 8))],
            [(CAT, bar(0, 4)), (CAT, bar(4, 8))],
        )
    )
    ap = (51 + 50 * 2 / 3) / 101
    expected = dict(AP=ap, AP50=ap, AP75=ap, AP_small=ap, AR=1.0, AR_1=0.5, AR_10=1.0, AR_small=1.0) | {"AP.cat": ap}
    assert metrics == pytest.approx(expected, abs=1e-12)


def test_mask_ap__averages_over_thresholds() -> None:
    # IoU 6/10 is enough at 0.50, 0.55 and 0.60.
    metrics = evaluate(line([(CAT, 0.9, bar(0, 6))], [(CAT, bar(0, 10))]))
    assert (metrics["AP"], metrics["AP50"], metrics["AP75"]) == pytest.approx((0.3, 1.0, 0.0), abs=1e-12)


def test_mask_ap__averages_over_classes_with_objects() -> None:
    # The cat is found, the dog is not; the cow is wrong, but no class of the average.
    metrics = evaluate(line([(CAT, 0.9, bar(0, 4)), (COW, 0.9, bar(8, 12))], [(CAT, bar(0, 4)), (DOG, bar(4, 8))]))
    assert (metrics["AP"], metrics["AP.cat"], metrics["AP.dog"]) == (0.5, 1.0, 0.0)
    assert not {"AP.cow", "AP.owl", "AP_medium", "AP_large", "AR_large"} & set(metrics)


def test_mask_ap__crowd_excuses_any_number_of_its_class() -> None:
    crowd = [(CAT, bar(10, 20))]
    inside = [(CAT, 0.9, bar(10, 14)), (CAT, 0.8, bar(14, 18))]
    found = (CAT, 0.5, bar(0, 4))
    assert evaluate(line([*inside, found], [(CAT, bar(0, 4))], crowd))["AP"] == 1.0
    # A dog there is wrong; of the cat above it, half lies outside, which is still enough at 0.5 alone.
    dogs = [(DOG, 0.9, bar(10, 14)), (DOG, 0.5, bar(0, 4))]
    assert evaluate(line(dogs, [(DOG, bar(0, 4))], crowd))["AP"] == 0.5
    half = evaluate(line([(CAT, 0.9, bar(8, 12)), found], [(CAT, bar(0, 4))], crowd))
    assert (half["AP50"], half["AP75"]) == (1.0, 0.5)


def test_mask_ap__sizes_are_those_of_masks() -> None:
    big, middle, small = (rectangle(0, 0, side, side, size=SIZE) for side in (100, 50, 20))
    metrics = evaluate(
        object_sample([(CAT, 0.9, big)], [(CAT, big), (DOG, middle), (DOG, small)], size=SIZE),
    )
    assert (metrics["AP_large"], metrics["AP_medium"], metrics["AP_small"]) == (1.0, 0.0, 0.0)


def test_mask_ap__counts_the_surest_detections_of_a_class_and_image() -> None:
    detections = [(CAT, 0.2, bar(0, 4)), (CAT, 0.9, bar(8, 12)), (DOG, 0.1, bar(4, 8))]
    objects = [(CAT, bar(0, 4)), (DOG, bar(4, 8))]
    assert evaluate(line(detections, objects), max_per_image=1)["AP"] == 0.5
    assert evaluate(line(detections, objects), max_per_image=2)["AP"] == 0.75


def random_image(seed: int) -> Image:
    """Objects of all sizes, overlapping; detections moved, doubled, of wrong class, empty, with equal scores."""
    draw = np.random.default_rng(seed)

    def shape() -> np.ndarray:
        side = draw.choice([12, 30, 33, 60, 97, 120])
        height, width = np.clip(draw.normal(side, 3, 2), 3, 140).astype(int)
        mask = rectangle(*draw.integers(0, 140 - np.array([height, width]) + 1), height, width, size=SIZE)
        return mask & ~rectangle(*draw.integers(0, 120, 2), 8, 8, size=SIZE)

    objects = [(int(draw.integers(3)), shape()) for _ in range(0 if seed % 5 == 4 else draw.integers(1, 8))]
    crowds = [(int(draw.integers(3)), shape()) for _ in range(draw.integers(3))]
    detections = []
    for label, mask in [*objects, *objects, *crowds]:
        moved = np.roll(mask, draw.integers(-4, 5, 2), (0, 1)) if draw.random() < 0.8 else mask
        label = label if draw.random() < 0.9 else int(draw.integers(3))
        detections.append((label, float(draw.integers(1, 10)) / 16, moved))
    detections += [(int(draw.integers(3)), 0.25, shape()), (CAT, 0.75, np.zeros(SIZE, bool))]
    return [detections[i] for i in draw.permutation(len(detections))], objects, crowds


class BoundaryCOCOeval(COCOeval):
    """Replaces IoU as the paper says; a crowd keeps the share of the detection's mask."""

    def computeIoU(self, image: int, category: int) -> object:
        ious = super().computeIoU(image, category)
        true, found = self._gts[image, category], self._dts[image, category]
        if len(ious) == 0 or not true:
            return ious
        order = np.argsort([-d["score"] for d in found], kind="mergesort")[: self.params.maxDets[-1]]
        crowd = np.array([g["iscrowd"] for g in true], bool)
        near = rle.iou(
            [self.region(found[i]) for i in order], [self.region(g) for g in true], crowd.astype(int).tolist()
        )
        return np.where(crowd, ious, np.minimum(ious, near))

    @staticmethod
    def region(annotation: dict) -> dict:
        mask = np.pad(rle.decode(annotation["segmentation"]), 1)
        inner = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=4)  # 2 % of 215 pixels
        return rle.encode(np.asfortranarray((mask - inner)[1:-1, 1:-1]))


def box_around(mask: np.ndarray) -> list[float]:
    """x, y, width, height."""
    if not mask.any():
        return [0.0] * 4
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return [float(x) for x in (columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0])]


def pycocotools_figures(
    images: list[Image], *, most: int = 100, boundary: bool = False, boxes: bool = False
) -> dict[str, float]:
    truth, found = [], []
    for index, (detections, objects, crowds) in enumerate(images):
        for number, (label, mask) in enumerate([*objects, *crowds]):
            truth.append(dict(image_id=index, category_id=label, mask=mask, iscrowd=int(number >= len(objects))))
        found += [dict(image_id=index, category_id=label, mask=mask, score=score) for label, score, mask in detections]
    sides = []
    for annotations in (truth, found):
        for identity, annotation in enumerate(annotations, start=1):
            mask = annotation.pop("mask")
            annotation |= dict(id=identity, area=float(mask.sum()), segmentation=rle.encode(np.asfortranarray(mask)))
            annotation["bbox"] = box_around(mask)
            if boxes and annotations is found:  # as COCO.loadRes does
                annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        side = COCO()
        side.dataset = dict(
            images=[dict(id=i, height=SIZE[0], width=SIZE[1]) for i in range(len(images))],
            categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES)],
            annotations=annotations,
        )
        side.createIndex()
        sides.append(side)
    judge = (BoundaryCOCOeval if boundary else COCOeval)(*sides, "bbox" if boxes else "segm")
    judge.params.maxDets = [1, 10, most] if most > 10 else [1, most]
    judge.evaluate()
    judge.accumulate()
    precision, recall = judge.eval["precision"], judge.eval["recall"]  # T R K A M, T K A M

    def mean(values: np.ndarray) -> float:
        return float(values[values > -1].mean()) if (values > -1).any() else math.nan

    figures = dict(AP50=mean(precision[0, ..., 0, -1]), AP75=mean(precision[5, ..., 0, -1]))
    for a, suffix in enumerate(("", "_small", "_medium", "_large")):
        figures |= {f"AP{suffix}": mean(precision[..., a, -1]), f"AR{suffix}": mean(recall[..., a, -1])}
    figures |= {f"AR_{n}": mean(recall[..., 0, m]) for m, n in enumerate(judge.params.maxDets[:-1])}
    figures |= {f"AP.{name}": mean(precision[:, :, k, 0, -1]) for k, name in enumerate(CLASSES)}
    prefix = "boundary_" if boundary else "box_" if boxes else ""
    return {prefix + name: value for name, value in figures.items() if not math.isnan(value)}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # raised within pycocotools
@pytest.mark.parametrize(
    ("seed", "options"),
    [(0, {}), (1, {}), (2, dict(most=3)), (4, dict(boundary=True)), (5, dict(boundary=True)), (6, dict(boxes=True))],
)
def test_mask_ap__equals_pycocotools(seed: int, options: dict, capsys: pytest.CaptureFixture) -> None:
    images = [random_image(100 * seed + k) for k in range(10)]
    samples = [object_sample(*image, size=SIZE) for image in images]
    for sample, (detections, _, _) in zip(samples, images, strict=True):
        corners = [[x, y, x + w, y + h] for x, y, w, h in (box_around(mask) for _, _, mask in detections)]
        sample["pred_instances"]["bboxes"] = torch.tensor(corners).reshape(-1, 4)
    assert any(not objects for _, objects, _ in images)
    built = dict(max_per_image=options["most"]) if "most" in options else options
    expected = pycocotools_figures(images, **options)
    assert len(expected) == (14 if "most" in options else 15)  # with AP of three classes, AR_10 where it differs
    assert all(0 < value < 1 for value in expected.values())
    assert evaluate(*samples, **built) == pytest.approx(expected, abs=1e-9)


def test_mask_ap__boundary_takes_the_smaller_iou() -> None:
    # Ten columns of which one is missed: mask IoU 0.9, rings of 36 and 34 pixels that share 26 of 44.
    size = (20, 30)
    truth, found = rectangle(4, 5, 10, 10, size=size), rectangle(4, 5, 10, 9, size=size)
    given = object_sample([(CAT, 0.9, found)], [(CAT, truth)], size=size)
    assert evaluate(given)["AP"] == pytest.approx(0.9, abs=1e-12)
    metrics = evaluate(given, boundary=True)
    assert metrics["boundary_AP"] == pytest.approx(0.2, abs=1e-12)  # 26/44 is enough at 0.50 and 0.55
    assert all(name.startswith("boundary_") for name in metrics)


def test_match_greedily__prefers_objects_that_count() -> None:
    # The detection overlaps the ignored object more, but takes the one that counts; the next gets the ignored one.
    ious = np.array([[0.9, 0.6], [0.8, 0.55]])
    ignored = np.array([[True], [False]])
    partners = match_greedily(ious, np.array([False, False]), ignored)
    assert partners[:, 0, 0].tolist() == [1, 0]
    assert partners[:, 0, 5].tolist() == [0, -1]  # at 0.75


def test_match_greedily__last_of_equals() -> None:
    partners = match_greedily(np.array([[0.8, 0.8]]), np.array([False, False]), np.zeros((2, 1), bool))
    assert partners[0, 0, 0] == 1


def test_interpolated_precision__no_detection() -> None:
    nothing = np.zeros((0, 10), bool)
    assert interpolated_precision(nothing, nothing, 3).tolist() == [0.0] * 10


def test_mask_ap__order_of_detections_changes_nothing() -> None:
    detections, objects, crowds = random_image(0)
    detections = [(label, 0.9 - 0.01 * k, mask) for k, (label, _, mask) in enumerate(detections)]
    first, second = (
        evaluate(object_sample(order, objects, crowds, size=SIZE)) for order in (detections, detections[::-1])
    )
    assert 0 < first["AP"] < 1
    assert first == second


def test_mask_ap__image_without_objects_counts_what_is_wrong() -> None:
    found = line([(CAT, 0.5, bar(0, 4))], [(CAT, bar(0, 4))])
    assert evaluate(found, line([], []))["AP"] == 1.0
    assert evaluate(found, line([(CAT, 0.9, bar(0, 4))], []))["AP"] == 0.5


def test_mask_ap__reads_what_an_evaluator_passes() -> None:
    evaluator = Evaluator(dict(type="mmseg_m2f.MaskAP"))
    evaluator.dataset_meta = dict(classes=CLASSES)
    given = line([(CAT, 0.5, bar(0, 4))], [(CAT, bar(0, 4))])
    given["gt_instances"]["masks"] = torch.from_numpy(bar(0, 4))[None]
    del given["ignored_instances"]
    evaluator.process([given])
    assert evaluator.evaluate(1)["AP"] == 1.0


def test_mask_ap__drops_samples_a_distributed_run_saw_twice() -> None:
    right, wrong = (line([(label, 0.9, bar(0, 4))], [(CAT, bar(0, 4))]) for label in (CAT, DOG))
    built = metric()
    built.process({}, [right, wrong])
    assert len(built.results) == 2
    assert built.evaluate(size=1)["AP"] == 1.0


def test_mask_ap__entry_does_not_grow_with_the_image() -> None:
    sizes = []
    for side in (16, 160):
        mask = rectangle(0, 0, side // 2, side, size=(side, side))
        built = metric()
        built.process({}, [object_sample([(CAT, 0.9, mask)], [(CAT, mask)], size=(side, side))])
        sizes.append(sum(column.nbytes for column in built.results[0]))
    assert sizes[0] == sizes[1] < 200


def test_mask_ap__no_object_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"MaskAP: expected objects in the truth, got 2 images without any.*Check"):
        evaluate(line([], []), line([(CAT, 0.9, bar(0, 4))], []))


@pytest.mark.parametrize(
    ("missing", "part"), [("pred_instances", "scores"), ("gt_instances", "masks"), ("ignored_instances", "labels")]
)
def test_mask_ap__missing_field_says_so(missing: str, part: str) -> None:
    given = line([], [])
    del given[missing][part]
    with pytest.raises(ValueError, match=rf"MaskAP, a/b\.png: expected '{missing}' with .*{part}.* got \[.*\]\. \w+"):
        evaluate(given)


def test_mask_ap__other_size_names_the_sample() -> None:
    given = line([], [])
    given["pred_instances"]["masks"] = torch.zeros(0, 2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"a/b\.png: expected .* annotation's size \(1, 20\), got \(2, 2\).*Load"):
        evaluate(given)


@pytest.mark.parametrize("label", [-1, 4])
def test_mask_ap__class_out_of_range_names_the_sample(label: int) -> None:
    with pytest.raises(ValueError, match=rf"a/b\.png: expected true objects of classes 0…3, got \[{label}\]\. Check"):
        evaluate(line([], [(label, bar(0, 4))]))
    with pytest.raises(ValueError, match=rf"a/b\.png: expected predicted objects of classes 0…3, got \[{label}\]"):
        evaluate(line([(label, 0.9, bar(0, 4))], []))


def test_mask_ap__no_detection_allowed() -> None:
    with pytest.raises(ValueError, match=r"MaskAP\.max_per_image: expected at least 1, got 0"):
        MaskAP(max_per_image=0)


def test_mask_ap__dataset_without_classes_says_so() -> None:
    with pytest.raises(ValueError, match="MaskAP: expected class names in the dataset's metainfo"):
        MaskAP().process({}, [])


def test_mask_ap__logs_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("mmseg_m2f.evaluation.metric_report.print_log", lambda text, logger: lines.append(text))
    metrics = evaluate(line([(CAT, 0.9, bar(0, 6)), (COW, 0.3, bar(0, 1))], [(CAT, bar(0, 10))]))
    table = lines[0].splitlines()
    assert table[2].split() == ["cat", "0.3000", "1.0000", "0.0000", "0.3000", "1", "1"]
    assert table[4].split() == ["cow", "-", "-", "-", "-", "0", "1"]
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())


def test_mask_ap__boxes_need_not_be_those_of_masks() -> None:
    size = (20, 30)
    sample = object_sample(
        [(CAT, 0.9, rectangle(0, 0, 2, 2, size=size))], [(CAT, rectangle(4, 5, 10, 10, size=size))], size=size
    )
    sample["pred_instances"]["bboxes"] = torch.tensor([[5.0, 4.0, 15.0, 11.0]])  # 7 of 10 rows
    metrics = evaluate(sample, boxes=True)
    assert (metrics["box_AP"], metrics["box_AP50"], metrics["box_AP75"]) == pytest.approx((0.5, 1.0, 0.0), abs=1e-12)
    assert evaluate(sample)["AP"] == 0


def test_mask_ap__boxes_that_are_missing() -> None:
    with pytest.raises(ValueError, match="expected bboxes in pred_instances"):
        evaluate(line([(CAT, 0.9, bar(0, 4))], [(CAT, bar(0, 4))]), boxes=True)
    with pytest.raises(ValueError, match="boundary or boxes, got both"):
        metric(boundary=True, boxes=True)
