import json
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from mmseg_m2f.core.postprocess import panoptic_map, resize_maps, semantic_scores, top_instances
from mmseg_m2f.core.streaming import Resizing, RowResize, semantic_labels, streamed_panoptic_map, streamed_top_instances

#: Strips of one row; of half of the larger answers; of all.
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


def resized(mask_logits: Tensor, resizing: Resizing) -> Tensor:
    """All mask logits at the size of the answer, Q H W."""
    return resize_maps(processed(mask_logits, resizing), resizing.size)[0]


def processed(mask_logits: Tensor, resizing: Resizing) -> Tensor:
    """All mask logits of the processed image, 1 Q H W."""
    height, width = resizing.crop
    return resize_maps(mask_logits.unsqueeze(0), resizing.canvas)[..., :height, :width]


def predicted() -> tuple[Tensor, Tensor]:
    """Class and mask logits; about half of the queries are sure, and masks overlap."""
    torch.manual_seed(3)
    class_logits = torch.randn(9, len(IS_THING) + 1) * 4
    rough = torch.randn(1, 9, 4, 5) * 6
    return class_logits, torch.nn.functional.interpolate(rough, SMALL, mode="bicubic")[0]


def resized_in_strips(maps: Tensor, size: tuple[int, int], height: int) -> Tensor:
    resize = RowResize((maps.shape[1], maps.shape[2]), size, maps.device)
    strips = [slice(top, min(top + height, size[0])) for top in range(0, size[0], height)]
    return torch.cat([resize(maps[:, resize.source_rows(rows)], rows) for rows in strips], 1)


@pytest.mark.parametrize("source", [(12, 16), (37, 141)])
@pytest.mark.parametrize("size", [(37, 141), (101, 141), (9, 150)])
@pytest.mark.parametrize("height", [1, 7, 200])
def test_row_resize__equals_resizing_all_rows(source, size, height):
    maps = torch.randn(5, *source) * 9
    assert torch.equal(resized_in_strips(maps, size, height), resize_maps(maps[None], size)[0])


@pytest.mark.parametrize("size", [(12, 16), (48, 64), (5, 40), (101, 16)])
def test_row_resize__small_sizes_up_to_rounding(size):
    maps = torch.randn(5, 12, 16)
    found = resized_in_strips(maps, size, 7)
    torch.testing.assert_close(found, resize_maps(maps[None], size)[0], rtol=0, atol=1e-6)


def test_row_resize__needs_few_rows():
    resize = RowResize((100, 3), (400, 3), torch.device("cpu"))
    assert resize.source_rows(slice(0, 8)) == slice(0, 3)
    assert resize.source_rows(slice(202, 206)) == slice(50, 52)
    assert resize.source_rows(slice(399, 400)) == slice(99, 100)


@pytest.mark.parametrize("max_memory_mb", MEMORIES)
@pytest.mark.parametrize("resizing", RESIZINGS.values(), ids=list(RESIZINGS))
def test_semantic_labels__equal_those_of_resized_logits(resizing, max_memory_mb):
    class_logits, mask_logits = predicted()
    expected = semantic_scores(class_logits[None], resized(mask_logits, resizing)[None]).argmax(1)[0]
    found = semantic_labels(class_logits, mask_logits, resizing, max_memory_mb=max_memory_mb)
    assert expected.unique().numel() > 2
    assert torch.equal(found, expected)


@pytest.mark.parametrize("max_memory_mb", MEMORIES)
@pytest.mark.parametrize("resizing", RESIZINGS.values(), ids=list(RESIZINGS))
def test_semantic_labels__equal_those_of_resized_scores(resizing, max_memory_mb):
    class_logits, mask_logits = predicted()
    scores = semantic_scores(class_logits[None], processed(mask_logits, resizing))
    expected = resize_maps(scores, resizing.size).argmax(1)[0]
    found = semantic_labels(class_logits, mask_logits, resizing, resize_scores=True, max_memory_mb=max_memory_mb)
    assert torch.equal(found, expected)


def test_semantic_labels__by_hand():
    # On the canvas 8 4 -4 -8; the image is the left half, 8 7 5 4 in the answer.
    mask_logits = torch.tensor([[[8.0, -8.0]], [[4.5, 4.5]]])
    class_logits = torch.tensor([[0.0, 99.0, 0.0], [99.0, 0.0, 0.0]])
    labels = semantic_labels(class_logits, mask_logits, Resizing((1, 4), (1, 2), (1, 4)))
    assert labels.tolist() == [[1, 1, 1, 0]]


def test_semantic_labels__class_that_wins_only_where_all_are_low():
    # Class 4 scores 0.02 everywhere, class 2 nearly 1 on the left and nearly 0 on the right.
    mask_logits = torch.tensor([[[9.0, 9.0, -9.0]], [[-4.0, -4.0, -4.0]]])
    class_logits = torch.nn.functional.one_hot(torch.tensor([2, 4]), 7) * 50.0
    assert semantic_labels(class_logits, mask_logits, Resizing((1, 3), (1, 3), (1, 3))).tolist() == [[2, 2, 4]]


def test_semantic_labels__class_that_wins_one_pixel_alone():
    mask_logits = torch.full((2, 8, 8), 2.0)
    mask_logits[1] = -9.0
    mask_logits[1, 5, 6] = 9.0
    class_logits = torch.nn.functional.one_hot(torch.tensor([2, 4]), 7) * 50.0
    labels = semantic_labels(class_logits, mask_logits, Resizing((8, 8), (8, 8), (8, 8)))
    assert (labels == 4).nonzero().tolist() == [[5, 6]]
    assert (labels == 2).sum() == 63


@pytest.mark.parametrize("level", [100.0, 0.0, -3.0])
def test_semantic_labels__first_of_equal_classes(level):
    mask_logits = torch.full((3, 4, 4), level)
    class_logits = torch.zeros(3, 8)
    class_logits[:, [2, 5, 7]] = 99.0
    class_logits[0, 3] = 97.0  # less than the equals
    labels = semantic_labels(class_logits, mask_logits, Resizing((16, 16), (16, 16), (16, 16)))
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
def test_streamed_panoptic_map__equals_that_of_resized_logits(resizing, max_memory_mb, keep_low_pixels):
    class_logits, mask_logits = predicted()
    options = dict(object_threshold=0.5, overlap_threshold=0.4, keep_low_pixels=keep_low_pixels)
    expected = panoptic_map(class_logits, resized(mask_logits, resizing), IS_THING, **options)
    found = streamed_panoptic_map(class_logits, mask_logits, IS_THING, resizing, max_memory_mb=max_memory_mb, **options)
    assert expected.unique().numel() > 3
    assert torch.equal(found, expected)


def test_streamed_panoptic_map__nothing_recognised():
    class_logits, mask_logits = predicted()
    found = streamed_panoptic_map(class_logits * 0, mask_logits, IS_THING, RESIZINGS["larger"])
    assert found.shape == (97, 101)
    assert (found == len(IS_THING)).all()


OPTIONS = {
    "default": {},
    "few": dict(max_per_image=12, things_first=False),
    "sure": dict(score_threshold=0.2),
    "one class": dict(one_class_per_query=True),
    "apart": dict(mask_nms_threshold=0.3),
}


@pytest.mark.parametrize("max_memory_mb", MEMORIES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
@pytest.mark.parametrize("resizing", RESIZINGS.values(), ids=list(RESIZINGS))
def test_streamed_top_instances__equal_those_of_resized_logits(resizing, options, max_memory_mb):
    class_logits, mask_logits = predicted()
    expected = top_instances(class_logits, resized(mask_logits, resizing), IS_THING, soft_masks=True, **options)
    found = streamed_top_instances(
        class_logits, mask_logits, IS_THING, resizing, soft_masks=True, max_memory_mb=max_memory_mb, **options
    )
    assert len(expected.scores) > 1
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.mask_probs, expected.mask_probs, rtol=0, atol=1e-6)
    for name in ("labels", "boxes", "masks"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_streamed_top_instances__nothing_found():
    class_logits, mask_logits = predicted()
    found = streamed_top_instances(class_logits, mask_logits, torch.zeros(6, dtype=torch.bool), RESIZINGS["larger"])
    assert found.masks.shape == (0, 97, 101)
    assert (len(found.scores), len(found.labels), found.boxes.shape, found.mask_probs) == (0, 0, (0, 4), None)


LARGE = """
import json
from pathlib import Path

import torch

from mmseg_m2f.core.postprocess import resize_maps, semantic_scores
from mmseg_m2f.core.streaming import Resizing, semantic_labels


def megabytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


torch.manual_seed(0)
size, resize_scores = {size}, {resize_scores}
resizing = Resizing((2048, 3072), (2048, 3072), size)
class_logits = torch.randn(100, 151) * 2
mask_logits = resize_maps(torch.randn(1, 100, 32, 48) * 6, (512, 768))[0]
semantic_labels(class_logits[:4], mask_logits[:4, :8, :8], Resizing((8, 8), (8, 8), (8, 8)))
before = megabytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
labels = semantic_labels(class_logits, mask_logits, resizing, resize_scores=resize_scores)
peak = megabytes("VmHWM") - before

if resize_scores:  # 64 rows of the canvas are 48 of the answer, and the last ones would need more
    logits = resize_maps(mask_logits[None, :, :17], (68, 3072))[:, :, :64]
    scores = resize_maps(semantic_scores(class_logits[None], logits), (48, 2304))
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
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("size", "resize_scores"), [((2048, 3072), False), ((1536, 2304), True)], ids=["canvas", "resized scores"]
)
def test_semantic_labels__large_image_in_500_megabytes(size, resize_scores):
    script = LARGE.format(size=size, resize_scores=resize_scores)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["wrong"] == 0
    assert found["classes"] > 10
    assert found["peak"] < 500, found
