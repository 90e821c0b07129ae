"""Annotation files with one thing wrong: a clear error, or the same reading as without it; never anything else."""

import copy
import gc
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg_m2f.datasets import CheckedLoading, CocoInstance, CocoPanoptic, LoadLabelMap
from mmseg_m2f.errors import UserError
from tests.datasets.coco_data import polygon, write_objects, write_panoptic
from tests.datasets.stored_files import write_grey_png

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

JUNK = (None, True, -1, 0, 2, 7.5, 1e9, float("nan"), float("inf"), 10**400, "", "x", [], [[]], {}, [None], [1, 2, 3])
IMAGE = dict(type="mmseg_m2f.CheckedLoading", transforms=[dict(type="mmengine.LoadImageFromFile")])
OBJECTS = [IMAGE, dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True)]
SEGMENTS = [
    IMAGE,
    dict(type="mmseg_m2f.CheckedLoading", transforms=[dict(type="mmseg_m2f.LoadPanoptic")]),
    dict(type="mmseg_m2f.SegmentsToObjects"),
]


@pytest.fixture(autouse=True)
def without_collecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmengine's data sets collect garbage when they are built, which takes longer than all the rest."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


def places(node: object, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value in a JSON file."""
    if path:
        yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def broken(content: dict, generator: random.Random) -> tuple[dict, tuple]:
    """The content with one value exchanged for junk, taken out or repeated."""
    content = copy.deepcopy(content)
    path = generator.choice([*places(content)])
    node = content
    for key in path[:-1]:
        node = node[key]
    change = generator.randrange(len(JUNK) + 2)
    if change < len(JUNK):
        node[path[-1]] = JUNK[change]
    elif change == len(JUNK):
        del node[path[-1]]
    elif isinstance(node, list):
        node.append(copy.deepcopy(node[path[-1]]))
    return content, path


def masks_of(sample: dict) -> list:
    """Label and mask of each object, and the semantic map, as plain values."""
    masks = sample["gt_masks"]
    masks = np.asarray(getattr(masks, "masks", masks)).astype(int)
    return [sample["gt_bboxes_labels"].tolist(), masks.tolist(), np.asarray(sample.get("gt_seg_map", 0)).tolist()]


@pytest.mark.parametrize("seed", range(100))
def test_coco_instance__one_wrong_value(tmp_path: Path, seed: int) -> None:
    rle = dict(size=[6, 8], counts=[24, 24])
    arguments = write_objects(
        tmp_path,
        dict(category_id=3, segmentation=polygon(1, 1, 6, 5), bbox=[1, 1, 5, 4], area=20, iscrowd=0),
        dict(category_id=7, segmentation=rle, bbox=[4, 0, 4, 6], area=24, iscrowd=0),
        dict(category_id=7, segmentation=dict(size=[6, 8], counts="h0h0"), iscrowd=1),
    )
    check(tmp_path, CocoInstance, arguments, OBJECTS, seed)


@pytest.mark.parametrize("seed", range(100))
def test_coco_panoptic__one_wrong_value(tmp_path: Path, seed: int) -> None:
    check(tmp_path, CocoPanoptic, write_panoptic(tmp_path), SEGMENTS, seed)


def check(folder: Path, kind: type, arguments: dict, pipeline: list, seed: int) -> None:
    content = json.loads((folder / "data.json").read_text())
    right = masks_of(kind(**arguments, pipeline=pipeline)[0])
    changed, path = broken(content, random.Random(seed))
    (folder / "data.json").write_text(json.dumps(changed))
    try:
        dataset = kind(**arguments, pipeline=pipeline)
        found = [masks_of(dataset[index]) for index in range(len(dataset))]
    except UserError as error:
        message = str(error)
    else:
        message = None
    if message is not None:
        assert str(folder) in message
        return
    harmless = {"area", "bbox", "color", "info", "licenses"} & {*path}
    meant = {"segmentation", "category_id", "iscrowd", "isthing", "name", "annotations", "segments_info", "categories"}
    assert found == [right] or (meant & {*path} and not harmless), (path, changed)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("seed", range(4))
def test_load_label_map__one_wrong_byte(tmp_path: Path, bits: int, seed: int) -> None:
    """A changed byte of the file is noticed by its checksums, or changes nothing."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2**bits, (9, 7))
    if bits == 16:
        Image.fromarray(labels.astype(np.uint16)).save(tmp_path / "a.png")
    else:
        write_grey_png(tmp_path / "a.png", labels, bits)
    data = bytearray((tmp_path / "a.png").read_bytes())
    for place in generator.integers(0, len(data), 20):
        changed = bytearray(data)
        changed[place] ^= int(generator.integers(1, 256))
        (tmp_path / "a.png").write_bytes(changed)
        sample = dict(img=np.zeros((9, 7, 3), np.uint8), ori_shape=(9, 7), seg_map_path=str(tmp_path / "a.png"))
        try:
            found = CheckedLoading([LoadLabelMap()])(sample | dict(seg_fields=[]))["gt_seg_map"]
        except UserError as error:
            found, message = labels, str(error)
        else:
            message = "a.png"
        assert "a.png" in message
        np.testing.assert_array_equal(found, labels)
