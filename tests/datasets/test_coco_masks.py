"""Checks before pycocotools draws; pycocotools itself is the oracle for boxes and run lengths."""

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from mmseg_m2f.datasets.coco_masks import check_mask

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
SIZE = (6, 8)


def check(mask: object, size: tuple[int, int] = SIZE) -> object:
    return check_mask(mask, size, "a.json, annotation 5")


def test_check_mask__polygons_with_three_points_and_their_box() -> None:
    triangle = [1, 2, 7.5, 2, 7, 5]
    assert check([triangle, [0, 0, 1, 1]]) == ([triangle], (1, 2, 7.5, 5))
    assert check([[0, 0, 1, 1]]) is None
    assert check([]) is None


def test_check_mask__polygon_a_little_outside() -> None:
    polygon = [-3, -3, 9, -3, 9, 8]
    assert check([polygon]) == ([polygon], (-3, -3, 9, 8))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("compressed", [True, False])
def test_check_mask__run_lengths_and_their_box(seed: int, compressed: bool) -> None:
    generator = np.random.default_rng(seed)
    height, width = generator.integers(1, 60, 2).tolist()
    mask = generator.random((height, width)) > generator.choice([0.02, 0.5, 0.98])
    code = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
    if compressed:
        given = dict(size=[height, width], counts=code["counts"].decode())
    else:
        given = dict(size=[height, width], counts=runs_of(mask))
    found = check(given, (height, width))
    left, top, w, h = run_lengths.toBbox(code)
    assert found == (given, (left, top, left + w, top + h))


def runs_of(mask: np.ndarray) -> list[int]:
    """Pixel by pixel."""
    runs, inside = [0], False
    for pixel in mask.ravel("F").tolist():
        if pixel != inside:
            runs.append(0)
            inside = pixel
        runs[-1] += 1
    return runs


def test_check_mask__large_runs() -> None:
    mask = np.zeros((3000, 2000), bool)
    mask[:, 700:1900] = True
    code = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
    given = dict(size=[3000, 2000], counts=code["counts"].decode())
    assert check(given, (3000, 2000)) == (given, (700, 0, 1900, 3000))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 1, float("nan"), 4, 4, 4]], "finite numbers as the coordinates of polygons, got nan"),
        ([[1, 1, 4, 1, float("inf"), 4]], "finite numbers .* got inf"),
        ([[1, 1, 10**400, 1, 4, 4]], "finite numbers .* got 1000"),
        ([[1, 1, True, 1, 4, 4]], "finite numbers .* got True"),
        ([[1, 1, "4", 1, 4, 4]], "finite numbers .* got 4"),
        ([[1, 1, [4], 1, 4, 4]], r"finite numbers .* got \[4\]"),
        ([[1, 1, 1e9, 4, 4, 4]], "finite numbers .* got 1000000000"),
        ([[1, 1, 1e6, 4, 4, 4]], r"within the image \(x 0…8, y 0…6.*got some from \(1.0, 1.0\) to \(1000000.0, 4.0\)"),
        ([[9, 1, 12.5, 4, 4, 4]], r"within the image .*got some from \(4.0, 1.0\) to \(12.5, 4.0\)"),
        ([[0.1, 0.2, 0.9, 0.2, 0.5, 0.8]], "polygons in pixels, got coordinates between 0 and 1"),
        ([1, 1, 4, 1, 4, 4], "as a list of polygons"),
        ([[1, 1, 4, 1, 4, 4, 5]], "as many x as y"),
        ("polygon", "as a list of polygons"),
        (None, "as a list of polygons"),
        (dict(size=[6, 8]), r"got \['size'\] without counts"),
        (dict(size=[8, 6], counts=[48]), r"the image's size \(height, width\) \[6, 8\], got \[8, 6\]"),
        (dict(size="6x8", counts=[48]), "the image's size .*got 6x8"),
        (dict(size=[6, 8], counts=[40]), "sum up to the 48 pixels of the image, got a sum of 40"),
        (dict(size=[6, 8], counts=[40, 9]), "got a sum of 49"),
        (dict(size=[6, 8], counts=[50, -2]), "got negative ones"),
        (dict(size=[6, 8], counts=[48.0]), "got others"),
        (dict(size=[6, 8], counts=[10**400]), "got others"),
        (dict(size=[6, 8], counts=None), "got others"),
        (dict(size=[6, 8], counts=""), "got others"),
        (dict(size=[6, 8], counts="P"), "got others"),  # says that more is to come
        (dict(size=[6, 8], counts="`1é"), "got others"),
        (dict(size=[6, 8], counts="8"), "got a sum of 8"),
        (dict(size=[6, 8], counts="oooooooo0"), "got others"),
    ],
)
def test_check_mask__refuses_by_name(mask: object, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^a.json, annotation 5.*{message}"):
        check(mask)


@pytest.mark.parametrize("seed", range(40))
def test_check_mask__broken_strings_are_never_misread(seed: int) -> None:
    """A changed string is refused, or covers the image as pycocotools reads it."""
    generator = np.random.default_rng(seed)
    mask = np.asfortranarray(generator.random(SIZE) > 0.5).astype(np.uint8)
    text = bytearray(run_lengths.encode(mask)["counts"])
    text[generator.integers(len(text))] = generator.integers(48, 112)
    given = dict(size=[*SIZE], counts=text.decode())
    try:
        _, box = check(given)
    except ValueError:
        return
    left, top, width, height = run_lengths.toBbox(given)
    assert box == (left, top, left + width, top + height)
