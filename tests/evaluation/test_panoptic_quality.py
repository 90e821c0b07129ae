import math
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.evaluation.functional import panoptic_utils
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData, PixelData
from PIL import Image
from torch import Tensor

from mmseg_m2f.evaluation import PanopticQuality
from mmseg_m2f.evaluation.panoptic_quality import SegmentCounts, TrueSegments, count_segments
from mmseg_m2f.structures import BACKGROUND, VOID
from tests.evaluation.object_samples import looped_boundary, rectangle

CLASSES = ("cat", "dog", "grass", "sky")  # K = 4: predicted void is 4
THINGS = (0, 1)
CAT, DOG, GRASS, SKY, NOTHING = 0, 1, 2, 3, 4


def sample(prediction: list | Tensor, truth: list | Tensor, *, path: str = "a/b.png") -> dict:
    """Both maps hold class + 1000 · number; 255 is void in the truth."""
    prediction, truth = torch.as_tensor(prediction), torch.as_tensor(truth)
    things = [i for i in truth.unique().tolist() if i != 255 and i % 1000 in THINGS]
    masks = np.stack([(truth == i).numpy() for i in things] or [np.zeros(truth.shape)])[: len(things)]
    element = DetDataSample(metainfo=dict(img_path=path, img_shape=(1, 1)))
    element.pred_panoptic_seg = PixelData(sem_seg=prediction[None])
    element.gt_instances = InstanceData(
        labels=torch.tensor([i % 1000 for i in things], dtype=torch.long),
        masks=BitmapMasks(masks.astype(np.uint8), *truth.shape),
    )
    element.ignored_instances = InstanceData()  # as mmdet packs it without annotations of crowds
    element.gt_sem_seg = PixelData(sem_seg=torch.where(truth == 255, 255, truth % 1000)[None].byte())
    return element.to_dict()


def metric(
    classes: tuple[str, ...] = CLASSES, things: tuple[int, ...] = THINGS, *, boundary: bool = False
) -> PanopticQuality:
    built = PanopticQuality(thing_classes=things, boundary=boundary)
    built.dataset_meta = dict(classes=classes)
    return built


def evaluate(*samples: dict, boundary: bool = False) -> dict[str, float]:
    built = metric(boundary=boundary)
    built.process({}, samples)
    return built.evaluate(size=len(samples))


def counts(prediction: list, truth: list, labels: list[int], crowds: int = 0) -> dict[int, tuple[float, int, int, int]]:
    """Class → IoU sum, matched, wrong, missed; the last `crowds` segments are some."""
    is_crowd = torch.arange(len(labels)) >= len(labels) - crowds
    segments = TrueSegments(torch.tensor(labels, dtype=torch.long), is_crowd, torch.tensor(truth))
    entry = count_segments(torch.tensor(prediction), segments, num_classes=len(CLASSES), where="x")
    return {c: tuple(rest) for c, *rest in zip(*(column.tolist() for column in entry), strict=True)}


def test_panoptic_quality__perfect_prediction() -> None:
    truth = [[1000, 1000, 2000, 2000], [2, 2, 3, 255]]
    metrics = evaluate(sample([[1000, 1000, 2000, 2000], [2, 2, 3, NOTHING]], truth))
    names = [q + g for q in ("PQ", "SQ", "RQ") for g in ("", "_things", "_stuff")]
    assert metrics == dict.fromkeys([*names, "PQ.cat", "PQ.grass", "PQ.sky"], 1.0)  # no dog anywhere


def test_panoptic_quality__split_object() -> None:
    # The cat of 4 pixels: the part of 3 matches with 3/4, the rest is wrong. Grass: 4/4.
    metrics = evaluate(sample([[1000, 1000, 1000, 2000], [2] * 4], [[1000] * 4, [2] * 4]))
    expected = dict(PQ=0.75, SQ=0.875, RQ=5 / 6, PQ_things=0.5, SQ_things=0.75, RQ_things=2 / 3)
    expected |= dict(PQ_stuff=1.0, SQ_stuff=1.0, RQ_stuff=1.0) | {"PQ.cat": 0.5, "PQ.grass": 1.0}
    assert metrics == pytest.approx(expected, abs=1e-12)


def test_panoptic_quality__sums_over_images_before_dividing() -> None:
    perfect = sample([[1000, 1000]], [[1000, 1000]])
    missed = sample([[NOTHING, NOTHING]], [[1000, 1000]])
    metrics = evaluate(perfect, perfect, missed)
    assert metrics["PQ.cat"] == pytest.approx(2 / 2.5, abs=1e-12)
    assert metrics["SQ"] == 1.0


@pytest.mark.parametrize(
    ("prediction", "truth", "labels", "expected"),
    [
        pytest.param([[2, 2, 2, 2]], [[0, 0, 0, VOID]], [GRASS], {GRASS: (1.0, 1, 0, 0)}, id="void_leaves_the_union"),
        pytest.param([[2, 4, 4, 2]], [[0, 1, VOID, VOID]], [GRASS, SKY], {GRASS: (1.0, 1, 0, 0), SKY: (0.0, 0, 0, 1)},
                     id="missed"),
        pytest.param([[2, 1001]], [[0, 1]], [GRASS, CAT], {CAT: (0.0, 0, 0, 1), DOG: (0.0, 0, 1, 0),
                     GRASS: (1.0, 1, 0, 0)}, id="wrong_class"),
        pytest.param([[2, 2]], [[0, BACKGROUND]], [GRASS], {GRASS: (0.0, 0, 1, 1)}, id="exactly_half_is_no_match"),
        pytest.param([[2, 2, 2]], [[0, 0, BACKGROUND]], [GRASS], {GRASS: (2 / 3, 1, 0, 0)}, id="background_counts"),
        pytest.param([[2, 2]], [[BACKGROUND, VOID]], [], {GRASS: (0.0, 0, 1, 0)}, id="half_on_void_is_wrong"),
        pytest.param([[2, 2, 2]], [[BACKGROUND, VOID, VOID]], [], {}, id="more_than_half_on_void_is_not"),
        pytest.param([[4, 4]], [[VOID, VOID]], [], {}, id="nothing"),
        pytest.param([[4, 4]], [[1, 1]], [CAT, DOG], {DOG: (0.0, 0, 0, 1)}, id="segment_without_pixels"),
    ],
)  # fmt: skip
def test_count_segments__hand_worked(
    prediction: list, truth: list, labels: list[int], expected: dict[int, tuple]
) -> None:
    assert counts(prediction, truth, labels) == expected


@pytest.mark.parametrize(
    ("prediction", "truth", "labels", "expected"),
    [
        # Two of three pixels of the cat on the crowd: excused, but not the dog's.
        pytest.param([[1000, 1000, 1000]], [[0, 0, BACKGROUND]], [CAT], {}, id="more_than_half_on_the_crowd"),
        pytest.param([[1001, 1001, 1001]], [[0, 0, BACKGROUND]], [CAT], {DOG: (0.0, 0, 1, 0)}, id="other_class"),
        pytest.param([[1000, 1000]], [[0, BACKGROUND]], [CAT], {CAT: (0.0, 0, 1, 0)}, id="half_on_the_crowd"),
        pytest.param([[1000, 1000, 1000]], [[0, VOID, BACKGROUND]], [CAT], {}, id="crowd_and_void_together"),
        # The crowd's pixel stays in the union of cat and cat: 2 / 3. As void it would leave it.
        pytest.param([[1000, 1000, 1000]], [[0, 0, 1]], [CAT, CAT], {CAT: (2 / 3, 1, 0, 0)}, id="stays_in_the_union"),
        pytest.param([[2, 2]], [[0, 0]], [CAT], {GRASS: (0.0, 0, 1, 0)}, id="stuff_on_a_crowd_is_wrong"),
        pytest.param([[4, 4]], [[0, 0]], [CAT], {}, id="is_never_missed"),
    ],
)  # fmt: skip
def test_count_segments__crowd_comes_last(
    prediction: list, truth: list, labels: list[int], expected: dict[int, tuple]
) -> None:
    assert counts(prediction, truth, labels, crowds=1) == expected


def random_maps(seed: int) -> tuple[Tensor, Tensor]:
    """Blocks of segments, and the same with pixels and whole segments changed; truth has void."""
    draw = np.random.default_rng(seed)
    ids = np.array([1000, 2000, 3000, 1001, 2001, 2, 3])
    truth = np.kron(draw.choice([*ids, 255], (5, 6)), np.ones((4, 4), np.int64))
    prediction = np.where(draw.random(truth.shape) < 0.2, draw.choice([*ids, NOTHING], truth.shape), truth)
    prediction[prediction == 255] = draw.choice([2, 4000, NOTHING])
    prediction[prediction == draw.choice(ids)] = draw.choice([4001, 5000, 2])
    prediction[draw.integers(5) * 4 :][:4] = draw.choice([2, 2001, NOTHING])
    return torch.from_numpy(prediction), torch.from_numpy(truth)


def brute_force(pairs: list[tuple[Tensor, Tensor]], *, boundary: bool = False) -> dict[str, float]:
    """The definition, pair of masks by pair of masks, in fractions."""

    def overlap(mask: Tensor, other: Tensor, void: Tensor) -> Fraction:
        return Fraction(int((mask & other).sum()), max(int((mask | (other & ~void)).sum()), 1))

    def edge(mask: Tensor) -> Tensor:
        return torch.from_numpy(looped_boundary(mask.numpy(), 1))  # 2 % of 31 pixels

    tally = {c: [Fraction(0), 0, 0, 0] for c in range(len(CLASSES))}
    for prediction, truth in pairs:
        void = truth == 255
        predicted = [(i, prediction == i) for i in prediction.unique().tolist() if i != NOTHING]
        true = [(i, truth == i) for i in truth.unique().tolist() if i != 255]
        used = set()
        for i, mask in true:
            for j, other in predicted:
                iou = overlap(mask, other, void)
                if boundary and iou > Fraction(1, 2):
                    iou = min(iou, overlap(edge(mask), edge(other), void))
                if i % 1000 == j % 1000 and iou > Fraction(1, 2):
                    tally[i % 1000][0] += iou
                    tally[i % 1000][1] += 1
                    used |= {("true", i), ("predicted", j)}
        for i, _ in true:
            tally[i % 1000][3] += ("true", i) not in used
        for j, other in predicted:
            on_void = Fraction(int((other & void).sum()), int(other.sum()))
            tally[j % 1000][2] += ("predicted", j) not in used and on_void <= Fraction(1, 2)
    figures = {}
    for c, (iou, tp, fp, fn) in tally.items():
        if tp + fp + fn:
            rq = Fraction(2 * tp, 2 * tp + fp + fn)
            sq = iou / tp if tp else Fraction(0)
            figures[c] = (sq * rq, sq, rq)
    result = {f"PQ.{CLASSES[c]}": float(pq) for c, (pq, _, _) in figures.items()}
    groups = {"": list(figures), "_things": [c for c in figures if c in THINGS]}
    groups["_stuff"] = [c for c in figures if c not in THINGS]
    for group, members in groups.items():
        for k, quality in enumerate(("PQ", "SQ", "RQ")):
            if members:
                result[quality + group] = float(sum(figures[c][k] for c in members) / len(members))
    prefix = "boundary_" if boundary else ""
    return {prefix + name: value for name, value in result.items()}


@pytest.mark.parametrize("seed", range(12))
def test_panoptic_quality__equals_brute_force_over_masks(seed: int) -> None:
    pairs = [random_maps(3 * seed + k) for k in range(3)]
    expected = brute_force(pairs)
    assert 0 < expected["PQ"] < 1
    assert evaluate(*(sample(*pair) for pair in pairs)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_panoptic_quality__boundary_equals_brute_force_over_masks(seed: int) -> None:
    pairs = [random_maps(100 + 3 * seed + k) for k in range(3)]
    # Whole numbers of blocks are found exactly or not at all: move some edges by a pixel.
    pairs = [(torch.where(truth.roll(1, 1) % 1000 == GRASS, truth.roll(1, 1), truth), truth) for _, truth in pairs]
    pairs = [(torch.where(prediction == 255, NOTHING, prediction), truth) for prediction, truth in pairs]
    expected = brute_force(pairs, boundary=True)
    assert 0 < expected["boundary_PQ"] < brute_force(pairs)["PQ"] < 1
    assert evaluate(*(sample(*pair) for pair in pairs), boundary=True) == pytest.approx(expected, abs=1e-12)


def test_panoptic_quality__boundary_takes_the_smaller_iou() -> None:
    # Ten columns of which one is missed: mask IoU 0.9, rings of 36 and 34 pixels that share 26 of 44.
    size = (20, 30)
    truth, found = (torch.from_numpy(rectangle(4, 5, 10, width, size=size)) for width in (10, 9))
    given = sample(torch.where(found, 1000, NOTHING), torch.where(truth, 1000, 255))
    assert evaluate(given)["PQ.cat"] == pytest.approx(0.9, abs=1e-12)
    metrics = evaluate(given, boundary=True)
    assert metrics["boundary_PQ.cat"] == pytest.approx(26 / 44, abs=1e-12)
    assert all(name.startswith("boundary_") for name in metrics)
    # A large hole: 500 of 900 pixels of the masks, 116 of 116 + 84 of the regions.
    truth, hole = (
        torch.from_numpy(rectangle(5 + k, 5 + k, side, side, size=(40, 50))) for k, side in ((0, 30), (5, 20))
    )
    given = sample(torch.where(truth & ~hole, 1000, NOTHING), torch.where(truth, 1000, 255))
    assert evaluate(given, boundary=True)["boundary_PQ.cat"] == pytest.approx(5 / 9, abs=1e-12)


def test_panoptic_quality__boundary_needs_more_than_half_of_both() -> None:
    # Shifted by one: 90 of 110 pixels of the masks, but 18 of 54 of the rings.
    cat, shifted = (torch.from_numpy(rectangle(4, left, 10, 10, size=(20, 30))) for left in (5, 6))
    given = sample(torch.where(shifted, 1000, NOTHING), torch.where(cat, 1000, GRASS))
    assert evaluate(given)["PQ.cat"] == pytest.approx(9 / 11, abs=1e-12)
    assert evaluate(given, boundary=True)["boundary_PQ.cat"] == 0.0


class CountsOfCategories(defaultdict):
    """Stands for panopticapi's `PQStat`, which is no dependency: counts of each class, all zero at first."""

    def __init__(self) -> None:
        super().__init__(lambda: SimpleNamespace(iou=0.0, tp=0, fp=0, fn=0))


@pytest.mark.parametrize("seed", range(6))
def test_panoptic_quality__crowds_equal_coco_as_mmdet_evaluates_it(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prediction, truth = random_maps(200 + seed)
    crowds = [i for i in (3000, 2001) if (truth == i).any()]  # at most one of a class, as in COCO
    assert crowds
    given = sample(prediction, truth)
    objects = given["gt_instances"]
    ids = torch.tensor([i for i in truth.unique().tolist() if i != 255 and i % 1000 in THINGS])
    is_crowd = torch.isin(ids, torch.tensor(crowds)).numpy()
    for name, chosen in (("gt_instances", ~is_crowd), ("ignored_instances", is_crowd)):
        given[name] = dict(labels=objects["labels"][chosen], masks=objects["masks"][chosen])

    monkeypatch.setattr(panoptic_utils, "PQStat", CountsOfCategories)
    monkeypatch.setattr(panoptic_utils, "rgb2id", lambda rgb: rgb.astype(np.int64) @ [1, 256, 65536])
    annotations = []
    for name, ids_map, nothing in (("truth", truth, 255), ("prediction", prediction, NOTHING)):
        ids_map = torch.where(ids_map == nothing, 0, ids_map).numpy()
        pixels = np.stack([ids_map % 256, ids_map // 256, 0 * ids_map], -1).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        segments = [
            dict(id=i, area=(ids_map == i).sum(), category_id=i % 1000, iscrowd=int(i in crowds and name == "truth"))
            for i in np.unique(ids_map[ids_map > 0]).tolist()
        ]
        annotations.append(dict(image_id=0, file_name=f"{name}.png", segments_info=segments))
    folder = str(tmp_path)
    counts_of = panoptic_utils.pq_compute_single_core(0, [tuple(annotations)], folder, folder, {*range(4)})

    built = metric()
    built.process({}, [given])
    entry = built.results[0]
    expected = {c: (s.iou, s.tp, s.fp, s.fn) for c, s in counts_of.items() if s.tp + s.fp + s.fn}
    got = {c: tuple(rest) for c, *rest in zip(*(column.tolist() for column in entry), strict=True)}
    assert got == {c: pytest.approx(figures, abs=1e-12) for c, figures in expected.items()}


@pytest.mark.parametrize("boundary", [False, True])
def test_panoptic_quality__listed_segment_without_a_pixel_is_missed(boundary: bool) -> None:
    perfect = [[1000, 1000, 2, 2]] * 4
    given = sample(perfect, perfect) | dict(absent_segments=(CAT, DOG, CAT))
    built = metric(boundary=boundary)
    built.process({}, [given, sample(perfect, perfect)])
    classes, iou, matched, wrong, missed = built.results[0]
    assert classes.tolist() == [CAT, DOG, GRASS]
    assert [iou.tolist(), matched.tolist(), wrong.tolist(), missed.tolist()] == [
        [1, 0, 1],
        [1, 0, 1],
        [0] * 3,
        [2, 1, 0],
    ]
    figures = built.evaluate(size=2)
    name = "boundary_PQ" if boundary else "PQ"
    assert figures[f"{name}.cat"] == 2 / (2 + 2 / 2)
    assert figures[f"{name}.dog"] == 0
    assert figures[name] == pytest.approx((2 / 3 + 0 + 1) / 3)


def test_panoptic_quality__reads_what_an_evaluator_passes() -> None:
    element = DetDataSample(metainfo=dict(img_path="x.png"))
    element.pred_panoptic_seg = PixelData(sem_seg=torch.tensor([[[1000, 1000, 2]]]))
    element.gt_instances = InstanceData(labels=torch.tensor([0]), masks=torch.tensor([[[1, 1, 0]]]))
    element.gt_sem_seg = PixelData(sem_seg=torch.tensor([[[0, 0, 2]]]))
    evaluator = Evaluator(dict(type="mmseg_m2f.PanopticQuality", thing_classes=[0, 1]))
    evaluator.dataset_meta = dict(classes=CLASSES)
    evaluator.process([element])
    assert evaluator.evaluate(1)["PQ"] == 1.0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # raised within pycocotools
def test_panoptic_quality__reads_structures_and_polygons() -> None:
    polygons = PolygonMasks([[np.array([0.0, 0, 4, 0, 4, 4, 0, 4])]], 4, 8)
    prediction = torch.full((1, 4, 8), GRASS)
    prediction[:, :, :4] = 1000
    given = dict(
        pred_panoptic_seg=PixelData(sem_seg=prediction),
        gt_instances=InstanceData(labels=torch.tensor([CAT]), masks=polygons),
        gt_sem_seg=PixelData(sem_seg=prediction % 1000),
    )
    assert evaluate(given)["PQ"] == 1.0


def crowd_sample(prediction: list) -> dict:
    """A cat on the left, a crowd of cats on the right; mmdet's label map names the crowd's class, too."""
    given = sample(prediction, [[1000, 1000, 2000, 2000, 2000]])
    masks = given["gt_instances"]["masks"]
    given["gt_instances"] = dict(labels=torch.tensor([CAT]), masks=masks[:1])
    given["ignored_instances"] = dict(labels=torch.tensor([CAT]), masks=masks[1:])
    return given


def test_panoptic_quality__crowd_excuses_its_own_class() -> None:
    cats = evaluate(crowd_sample([[1000, 1000, 2000, 2000, 2000]]))
    assert cats == dict.fromkeys(("PQ", "SQ", "RQ", "PQ_things", "SQ_things", "RQ_things", "PQ.cat"), 1.0)
    dog = evaluate(crowd_sample([[1000, 1000, 2001, 2001, 2001]]))
    assert (dog["PQ.cat"], dog["PQ.dog"]) == (1.0, 0.0)


def test_panoptic_quality__crowd_stays_in_the_union() -> None:
    assert evaluate(crowd_sample([[1000, 1000, 1000, NOTHING, NOTHING]]))["PQ.cat"] == pytest.approx(2 / 3, abs=1e-12)


def test_panoptic_quality__object_keeps_its_pixels_from_a_crowd() -> None:
    given = crowd_sample([[1000, 1000, NOTHING, NOTHING, NOTHING]])
    given["ignored_instances"]["masks"] = torch.ones(1, 1, 5)
    assert evaluate(given)["PQ.cat"] == 1.0


def test_panoptic_quality__crowds_without_labels_are_void() -> None:
    given = crowd_sample([[1000, 1000, 1000, 2001, 2001]])
    del given["ignored_instances"]["labels"]
    metrics = evaluate(given)
    assert metrics["PQ.cat"] == 1.0
    assert "PQ.dog" not in metrics


def test_panoptic_quality__things_alone_need_no_stuff() -> None:
    built = metric(("cat", "dog"))
    given = dict(
        # Cat 1 whole; a cat on the crowd, not counted; a dog on the background, wrong.
        pred_panoptic_seg=dict(sem_seg=torch.tensor([[[1000, 1000, 2000, 2000, 2001, 2]]])),
        gt_instances=dict(labels=torch.tensor([0]), masks=torch.tensor([[[1, 1, 0, 0, 0, 0]]])),
        ignored_instances=dict(labels=torch.tensor([0]), masks=torch.tensor([[[0, 0, 1, 1, 0, 0]]])),
        img_shape=(1, 2),  # of the resized image: says nothing about the annotation
    )
    built.process({}, [given])
    assert built.results == [SegmentCounts(*map(pytest.approx, ([0, 1], [1.0, 0.0], [1, 0], [0, 1], [0, 0])))]


def test_panoptic_quality__first_of_overlapping_objects_keeps_the_pixels() -> None:
    masks = torch.tensor([[[1, 1, 1, 0, 0, 0]], [[0, 0, 1, 1, 1, 0]]])
    given = sample([[1000, 1000, 1000, 2000, 2000, 2]], [[2] * 6])
    given["gt_instances"] = dict(labels=torch.tensor([0, 0]), masks=masks)  # the grass lies under both
    assert evaluate(given)["PQ"] == 1.0


def test_panoptic_quality__drops_samples_a_distributed_run_saw_twice() -> None:
    right, wrong = [[1000, 2]], [[2, 1000]]
    built = metric()
    built.process({}, [sample(right, right), sample(wrong, right)])
    assert len(built.results) == 2
    assert built.evaluate(size=1)["PQ"] == 1.0


def test_panoptic_quality__entry_does_not_grow_with_the_image() -> None:
    truth = torch.zeros(512, 512, dtype=torch.long)
    truth[:, 256:] = 1
    built = metric()
    built.process({}, [sample(truth + 2, truth + 2)])
    assert [column.tolist() for column in built.results[0]] == [[2, 3], [1.0, 1.0], [1, 1], [0, 0], [0, 0]]


def test_panoptic_quality__image_of_void_alone_changes_nothing() -> None:
    truth = [[1000, 2, 2]]
    void = sample([[1000, 2, NOTHING]], [[255] * 3])
    assert evaluate(sample(truth, truth), void) == evaluate(sample(truth, truth))


def test_panoptic_quality__nothing_but_void_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"expected segments in the truth, got 1 images without any.*Check the annot"):
        evaluate(sample([[1000, 2]], [[255, 255]]))


def test_panoptic_quality__other_size_names_the_sample() -> None:
    with pytest.raises(ValueError, match=r"a/b\.png: expected .* annotation's size \(1, 3\), got \(1, 2\)"):
        evaluate(sample([[2, 2]], [[2, 2, 2]]))


@pytest.mark.parametrize("wrong", [5, 1005, -1])
def test_panoptic_quality__predicted_class_out_of_range_names_the_sample(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"a/b\.png: expected predicted ids .* 0…3, or 4 for void, got \[{wrong}\]"):
        evaluate(sample([[2, wrong]], [[2, 2]]))


def test_count_segments__true_class_out_of_range_names_the_sample() -> None:
    with pytest.raises(ValueError, match=r"x: expected true segments of classes 0…3, got \[4\]"):
        counts([[2, 2]], [[0, 0]], [4])


@pytest.mark.parametrize("missing", ["pred_panoptic_seg", "gt_instances", "gt_sem_seg"])
def test_panoptic_quality__missing_field_says_so(missing: str) -> None:
    given = sample([[2, 2]], [[2, 2]])
    del given[missing]
    with pytest.raises(ValueError, match=rf"a/b\.png: expected '{missing}' with .* in the sample, got \["):
        evaluate(given)


def test_panoptic_quality__objects_without_masks_say_so() -> None:
    given = sample([[2, 2]], [[2, 2]])
    del given["gt_instances"]["masks"]
    with pytest.raises(ValueError, match=r"expected 'gt_instances' with labels, masks in the sample, got \['labels'\]"):
        evaluate(given)


def test_panoptic_quality__thing_class_the_dataset_lacks() -> None:
    built = metric(things=(0, 9))
    with pytest.raises(ValueError, match=r"thing_classes: expected indices of the dataset's classes, 0…3, got \[9\]"):
        built.process({}, [])


def test_panoptic_quality__dataset_without_classes_says_so() -> None:
    with pytest.raises(ValueError, match="expected class names in the dataset's metainfo"):
        PanopticQuality(thing_classes=[]).process({}, [])


def test_panoptic_quality__logs_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("mmseg_m2f.evaluation.metric_report.print_log", lambda text, logger: lines.append(text))
    evaluate(sample([[1000, 1000, 1000, 2000]], [[1000] * 4]))
    table = lines[0].splitlines()
    assert table[2].split() == ["cat", "thing", "0.5000", "0.7500", "0.6667", "1", "1", "0"]
    assert table[5].split() == ["sky", "stuff", "-", "-", "-", "0", "0", "0"]


def test_panoptic_quality__figures_are_plain_numbers() -> None:
    metrics = evaluate(sample([[1000, 2]], [[1000, 2]]))
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())
