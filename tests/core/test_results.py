import json
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from mmseg_m2f.core import results
from mmseg_m2f.core.postprocess import Instances, resize_maps, semantic_scores
from mmseg_m2f.core.results import panoptic_maps, semantic_labels, top_instances
from mmseg_m2f.core.strips import Resizing
from tests.core import oracle

#: Strips of one row; of half of the larger results; of all.
MEMORIES = (0, 1, 64)
SMALL = (12, 16)
RESIZINGS = {
    "nothing": Resizing(SMALL, SMALL, SMALL),
    "once": Resizing((48, 64), (48, 64), (48, 64)),
    "crop": Resizing((48, 64), (41, 57), (41, 57)),
    "rows only": Resizing((48, 16), (48, 16), (48, 16)),
    "smaller": Resizing((48, 64), (41, 57), (17, 23)),
    "larger": Resizing((50, 70), (50, 63), (97, 101)),
    "squeezed": Resizing((48, 64), (48, 64), (3, 130)),
}
IS_THING = torch.tensor([True, True, False, True, False, False])
NUM_THINGS = 3


@pytest.fixture(params=["image by image", "batch"], autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """As on a CPU, and as on a card: the whole batch at once."""
    if request.param == "batch":
        monkeypatch.setattr(results, "_reads_are_free", lambda _: False)
    return request.param


def resized(mask_logits: Tensor, resizing: Resizing) -> Tensor:
    """All mask logits at the size of the result, B Q H W."""
    return resize_maps(processed(mask_logits, resizing), resizing.size)


def processed(mask_logits: Tensor, resizing: Resizing) -> Tensor:
    """All mask logits of the processed images, B Q H W."""
    height, width = resizing.crop
    return resize_maps(mask_logits, resizing.canvas)[..., :height, :width]


def predicted() -> tuple[Tensor, Tensor]:
    """Class and mask logits of two images; about half of the queries are confident, and masks overlap."""
    torch.manual_seed(3)
    class_logits = torch.randn(2, 9, len(IS_THING) + 1) * 4
    rough = torch.randn(2, 9, 4, 5) * 6
    return class_logits, torch.nn.functional.interpolate(rough, SMALL, mode="bicubic")


def labels_of_one(class_logits: Tensor, mask_logits: Tensor, resizing: Resizing) -> Tensor:
    return semantic_labels(class_logits.unsqueeze(0), mask_logits.unsqueeze(0), resizing)[0]


@pytest.mark.parametrize("max_memory_mb", MEMORIES)
@pytest.mark.parametrize("resizing", RESIZINGS.values(), ids=list(RESIZINGS))
def test_semantic_labels__equal_those_of_resized_logits(resizing, max_memory_mb):
    class_logits, mask_logits = predicted()
    expected = semantic_scores(class_logits, resized(mask_logits, resizing)).argmax(1)
    found = semantic_labels(class_logits, mask_logits, resizing, max_memory_mb=max_memory_mb)
    assert expected.unique().numel() > 2
    assert torch.equal(found, expected)


@pytest.mark.parametrize("max_memory_mb", MEMORIES)
@pytest.mark.parametrize("resizing", RESIZINGS.values(), ids=list(RESIZINGS))
def test_semantic_labels__equal_those_of_resized_scores(resizing, max_memory_mb):
    class_logits, mask_logits = predicted()
    scores = semantic_scores(class_logits, processed(mask_logits, resizing))
    expected = resize_maps(scores, resizing.size).argmax(1)
    found = semantic_labels(class_logits, mask_logits, resizing, resize_scores=True, max_memory_mb=max_memory_mb)
    assert torch.equal(found, expected)


def test_semantic_labels__by_hand():
    # On the canvas 8 4 -4 -8; the image is the left half, 8 7 5 4 in the result.
    mask_logits = torch.tensor([[[8.0, -8.0]], [[4.5, 4.5]]])
    class_logits = torch.tensor([[0.0, 99.0, 0.0], [99.0, 0.0, 0.0]])
    labels = labels_of_one(class_logits, mask_logits, Resizing((1, 4), (1, 2), (1, 4)))
    assert labels.tolist() == [[1, 1, 1, 0]]


def test_semantic_labels__class_that_wins_only_where_all_are_low():
    # Class 4 scores 0.02 everywhere, class 2 nearly 1 on the left and nearly 0 on the right.
    mask_logits = torch.tensor([[[9.0, 9.0, -9.0]], [[-4.0, -4.0, -4.0]]])
    class_logits = torch.nn.functional.one_hot(torch.tensor([2, 4]), 7) * 50.0
    assert labels_of_one(class_logits, mask_logits, Resizing((1, 3), (1, 3), (1, 3))).tolist() == [[2, 2, 4]]


def test_semantic_labels__class_that_wins_one_pixel_alone():
    mask_logits = torch.full((2, 8, 8), 2.0)
    mask_logits[1] = -9.0
    mask_logits[1, 5, 6] = 9.0
    class_logits = torch.nn.functional.one_hot(torch.tensor([2, 4]), 7) * 50.0
    labels = labels_of_one(class_logits, mask_logits, Resizing((8, 8), (8, 8), (8, 8)))
    assert (labels == 4).nonzero().tolist() == [[5, 6]]
    assert (labels == 2).sum() == 63


@pytest.mark.parametrize("level", [100.0, 0.0, -3.0])
def test_semantic_labels__first_of_equal_classes(level):
    mask_logits = torch.full((3, 4, 4), level)
    class_logits = torch.zeros(3, 8)
    class_logits[:, [2, 5, 7]] = 99.0
    class_logits[0, 3] = 97.0  # less than the equals
    labels = labels_of_one(class_logits, mask_logits, Resizing((16, 16), (16, 16), (16, 16)))
    assert (labels == 2).all()


@pytest.mark.parametrize("value", [-200.0, float("nan")])
def test_semantic_labels__without_any_score(value):
    class_logits, mask_logits = predicted()
    mask_logits[:] = value
    assert (semantic_labels(class_logits, mask_logits, RESIZINGS["larger"]) == 0).all()


def test_semantic_labels__half_precision_is_computed_in_float32():
    class_logits, mask_logits = (part.half() for part in predicted())
    found = semantic_labels(class_logits, mask_logits, RESIZINGS["larger"])
    assert torch.equal(found, semantic_labels(class_logits.float(), mask_logits.float(), RESIZINGS["larger"]))


@pytest.mark.parametrize("keep_low_pixels", [False, True])
@pytest.mark.parametrize("max_memory_mb", MEMORIES)
@pytest.mark.parametrize("resizing", RESIZINGS.values(), ids=list(RESIZINGS))
def test_panoptic_maps__equal_those_of_resized_logits(resizing, max_memory_mb, keep_low_pixels):
    class_logits, mask_logits = predicted()
    options = dict(object_threshold=0.5, overlap_threshold=0.4, keep_low_pixels=keep_low_pixels)
    found = panoptic_maps(class_logits, mask_logits, IS_THING, resizing, max_memory_mb=max_memory_mb, **options)
    for image, logits in enumerate(resized(mask_logits, resizing)):
        expected = oracle.panoptic_map(class_logits[image], logits, IS_THING, **options)
        assert expected.unique().numel() > 2
        assert torch.equal(found[image], expected)


@pytest.mark.parametrize("keep_low_pixels", [False, True])
def test_panoptic_maps__nothing_recognised_in_one_image(keep_low_pixels):
    class_logits, mask_logits = predicted()
    class_logits[0] = 0
    mask_logits[:, 3] = -200.0  # a probability of 0, as of queries that do not compete
    options = dict(object_threshold=0.5, overlap_threshold=0.0, keep_low_pixels=keep_low_pixels)
    found = panoptic_maps(class_logits, mask_logits, IS_THING, RESIZINGS["larger"], **options)
    assert found.shape == (2, 97, 101)
    assert (found[0] == len(IS_THING)).all()
    logits = resized(mask_logits, RESIZINGS["larger"])[1]
    assert torch.equal(found[1], oracle.panoptic_map(class_logits[1], logits, IS_THING, **options))


OPTIONS = {
    "default": {},
    "few": dict(max_per_image=12, things_first=False),
    "confident": dict(score_threshold=0.2),
    "one class": dict(one_class_per_query=True),
    "one class of all": dict(one_class_per_query=True, things_first=False),
    "apart": dict(mask_nms_threshold=0.3),
}


@pytest.mark.parametrize("max_memory_mb", MEMORIES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
@pytest.mark.parametrize("resizing", RESIZINGS.values(), ids=list(RESIZINGS))
def test_top_instances__equal_those_of_resized_logits(resizing, options, max_memory_mb):
    class_logits, mask_logits = predicted()
    found = top_instances(
        class_logits,
        mask_logits,
        IS_THING,
        resizing,
        num_things=NUM_THINGS,
        soft_masks=True,
        max_memory_mb=max_memory_mb,
        **options,
    )
    for image, logits in enumerate(resized(mask_logits, resizing)):
        expected = oracle.top_instances(class_logits[image], logits, IS_THING, soft_masks=True, **options)
        assert len(expected.scores) > 1
        order, expected_order = order_of(found[image]), order_of(expected)
        for name in ("scores", "mask_probs"):
            actual = getattr(found[image], name)[order]
            torch.testing.assert_close(actual, getattr(expected, name)[expected_order], rtol=0, atol=1e-6)
        for name in ("labels", "boxes", "masks"):
            assert torch.equal(getattr(found[image], name)[order], getattr(expected, name)[expected_order]), name


def order_of(found: Instances) -> list[int]:
    """By class and score, which differ by more than rounding."""
    return sorted(range(len(found.scores)), key=lambda i: (found.labels[i].item(), found.scores[i].item()))


def test_top_instances__nothing_found():
    class_logits, mask_logits = predicted()
    nothing = torch.zeros(6, dtype=torch.bool)
    for found in top_instances(class_logits, mask_logits, nothing, RESIZINGS["larger"], num_things=0):
        assert found.masks.shape == (0, 97, 101)
        assert (len(found.scores), len(found.labels), found.boxes.shape, found.mask_probs) == (0, 0, (0, 4), None)


def test_results__no_image_at_all():
    class_logits, mask_logits = (part[:0] for part in predicted())
    assert semantic_labels(class_logits, mask_logits, RESIZINGS["once"]).shape == (0, 48, 64)
    assert panoptic_maps(class_logits, mask_logits, IS_THING, RESIZINGS["once"]).shape == (0, 48, 64)
    assert top_instances(class_logits, mask_logits, IS_THING, RESIZINGS["once"], num_things=NUM_THINGS) == []


TWO = torch.tensor([True, False])


def confident_of(classes: list[int], num_classes: int) -> Tensor:
    """Class logits Q K1 of confident queries."""
    return torch.nn.functional.one_hot(torch.tensor(classes), num_classes + 1).float() * 20


def left_of(columns: list[int]) -> Tensor:
    """Mask logits Q 4 8: +8 in the first columns, −8 elsewhere; negative counts from the right."""
    logits = torch.full((len(columns), 4, 8), -8.0)
    for mask, count in zip(logits, columns, strict=True):
        mask[:, :count] = 8.0 if count > 0 else mask[:, :count]
        if count < 0:
            mask[:, count:] = 8.0
    return logits


def panoptic_of_one(class_logits: Tensor, mask_logits: Tensor, **options: float) -> Tensor:
    size = (mask_logits.shape[1], mask_logits.shape[2])
    return panoptic_maps(class_logits[None], mask_logits[None], TWO, Resizing(size, size, size), **options)[0]


def instances_of_one(
    class_logits: Tensor, mask_logits: Tensor, is_thing: list[bool], **options: float | bool
) -> Instances:
    size = (mask_logits.shape[1], mask_logits.shape[2])
    things, resizing = torch.tensor(is_thing), Resizing(size, size, size)
    (found,) = top_instances(
        class_logits[None], mask_logits[None], things, resizing, num_things=sum(is_thing), **options
    )
    return found


def test_panoptic_maps__things_are_numbered_and_stuff_is_merged():
    # A thing left, a thing right, stuff in two pieces between them; the last query sees nothing.
    logits = left_of([2, -2, 1, 1])
    logits[2:] = -8.0
    logits[2, :, 2:4], logits[3, :, 4:5] = 8.0, 8.0
    panoptic = panoptic_of_one(confident_of([0, 0, 1, 1], 2), logits)
    assert panoptic[0].tolist() == [1000, 1000, 1, 1, 1, 2, 2000, 2000]


def test_panoptic_maps__covered_and_unconfident_queries_are_dropped():
    logits = left_of([4, 5, 8])
    class_logits = confident_of([0, 0, 1], 2)
    logits[0] += 4.0  # wins four of the five columns of the second
    class_logits[2] = 0.0
    panoptic = panoptic_of_one(class_logits, logits, overlap_threshold=0.5)
    assert panoptic[0].tolist() == [1000] * 4 + [2] * 4


def test_panoptic_maps__nothing_recognised():
    assert (panoptic_of_one(confident_of([2, 2], 2), left_of([3, 3])) == 2).all()


def test_top_instances__score_is_class_times_mask():
    class_logits = torch.log(torch.tensor([[0.7, 0.2, 0.1]]))
    mask_logits = torch.tensor([[[3.0, -2.0, 1.0, 0.5]]])
    found = instances_of_one(class_logits, mask_logits, [True, True], max_per_image=1)
    assert found.scores.item() == pytest.approx(0.7 * 0.768697, abs=1e-5)
    assert found.masks.tolist() == [[[True, False, True, True]]]


def test_top_instances__fewer_pairs_than_asked_for():
    found = instances_of_one(torch.randn(3, 2), torch.randn(3, 4, 4), [True], max_per_image=100)
    assert len(found.scores) == 3


def test_top_instances__stuff_takes_no_place_from_things():
    class_logits = torch.log(torch.tensor([[0.1, 0.8, 0.1], [0.2, 0.7, 0.1]]))
    masks = torch.ones(2, 4, 4)
    kept = instances_of_one(class_logits, masks, [True, False], max_per_image=2)
    assert sorted(kept.scores.tolist()) == pytest.approx([0.0731, 0.1462], abs=1e-4)
    assert len(instances_of_one(class_logits, masks, [True, False], max_per_image=2, things_first=False).scores) == 0


def test_top_instances__one_class_per_query():
    class_logits = torch.log(torch.tensor([[0.5, 0.4, 0.1], [0.3, 0.2, 0.5]]))
    both = [True, True]
    masks = torch.ones(2, 4, 4)
    assert len(instances_of_one(class_logits, masks, both).scores) == 4
    found = instances_of_one(class_logits, masks, both, one_class_per_query=True)
    assert sorted(found.scores.tolist()) == pytest.approx([0.3 * 0.7311, 0.5 * 0.7311], abs=1e-4)
    assert found.labels.tolist() == [0, 0]


def test_top_instances__score_threshold():
    class_logits = torch.log(torch.tensor([[0.9, 0.1], [0.4, 0.6]]))
    found = instances_of_one(class_logits, torch.full((2, 4, 4), 9.0), [True], score_threshold=0.5)
    assert found.scores.tolist() == pytest.approx([0.9], abs=1e-3)


def test_top_instances__mask_nms_within_a_class():
    # Two queries of class 0 share 4 of 5 columns (IoU 0.8), a third of class 1 lies on the same place.
    class_logits = torch.log(torch.tensor([[0.6, 0.1, 0.3], [0.8, 0.1, 0.1], [0.0, 0.7, 0.3]]))
    found = instances_of_one(
        class_logits,
        left_of([4, 5, 5]),
        [True, True],
        one_class_per_query=True,
        mask_nms_threshold=0.7,
    )
    assert sorted(found.labels.tolist()) == [0, 1]
    assert found.masks[found.labels == 0].sum().item() == 20  # the one that scores more
    kept = instances_of_one(
        class_logits, left_of([4, 5, 5]), [True, True], one_class_per_query=True, mask_nms_threshold=0.85
    )
    assert len(kept.scores) == 3


def test_top_instances__soft_masks():
    logits = torch.tensor([[[3.0, -2.0]]])
    found = instances_of_one(torch.tensor([[9.0, 0.0]]), logits, [True], soft_masks=True)
    torch.testing.assert_close(found.mask_probs, logits.sigmoid())
    assert instances_of_one(torch.tensor([[9.0, 0.0]]), logits, [True]).mask_probs is None


LARGE = """
import json
from pathlib import Path

import torch

from mmseg_m2f.core.postprocess import resize_maps, semantic_scores
from mmseg_m2f.core.results import semantic_labels
from mmseg_m2f.core.strips import Resizing


def megabytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


torch.manual_seed(0)
canvas, size, resize_scores = {canvas}, {size}, {resize_scores}
resizing = Resizing(canvas, canvas, size)
class_logits = torch.randn(100, 151) * 2
mask_logits = resize_maps(torch.randn(1, 100, 32, 48) * 6, (canvas[0] // 4, canvas[1] // 4))[0]
semantic_labels(class_logits[None, :4], mask_logits[None, :4, :8, :8], Resizing((8, 8), (8, 8), (8, 8)))
before = megabytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
(labels,) = semantic_labels(class_logits[None], mask_logits[None], resizing, resize_scores=resize_scores)
peak = megabytes("VmHWM") - before

if resize_scores:  # 64 rows of the canvas are 48 of the result, and the last ones would need more
    logits = resize_maps(mask_logits[None, :, :17], (68, canvas[1]))[:, :, :64]
    scores = resize_maps(semantic_scores(class_logits[None], logits), (48, size[1]))
    rows = torch.arange(40)
    expected = scores[0, :, rows].argmax(0)
else:  # some rows of each mask, a few masks at a time
    rows = torch.arange(0, size[0], 97)
    logits = torch.cat([resize_maps(few[None], size)[0, :, rows] for few in mask_logits.split(4)])
    expected = semantic_scores(class_logits[None], logits[None]).argmax(1)[0]
wrong = (labels[rows] != expected).sum().item()
print(json.dumps(dict(peak=peak, wrong=wrong, classes=labels.unique().numel())))
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", ["image by image"], indirect=True)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("resize_scores", [False, True], ids=["canvas", "resized scores"])
@pytest.mark.parametrize(
    ("canvas", "most"), [((1024, 1536), 125), pytest.param((2048, 3072), 500, marks=pytest.mark.exhaustive)]
)
def test_semantic_labels__large_image_in_an_eighth_of_its_scores(canvas, most, resize_scores):
    size = (canvas[0] * 3 // 4, canvas[1] * 3 // 4) if resize_scores else canvas
    script = LARGE.format(canvas=canvas, size=size, resize_scores=resize_scores)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["wrong"] == 0
    assert found["classes"] > 10
    assert found["peak"] < most, found  # megabytes; all scores take 906 and 3624
