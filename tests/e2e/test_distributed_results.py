"""Result files of two processes: one result for each image, as pycocotools and a reader of panoptic files see them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.datasets.coco_data import write_ids, write_image

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("distributed_results.py")
SIZE = (40, 48)
#: Equal names in different folders, names that differ in the suffix, folders and files named like those of results.
NAMES = (
    *(
        "a/0.png",
        "b/0.png",
        "a/b/0.png",
        "labels/0.png",
        "panoptic/0.png",
        "panoptic.json/0.png",
        "instances.json/0.png",
    ),
    *("b.jpg", "b.png", "x.png", "x_2.png", "labels_/0.png", "b.png_/0.png"),
)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),  # of pycocotools
]


def truth(index: int) -> np.ndarray:
    """Segment ids: grass (70000), and two cats (1 and 2) whose places tell the images apart."""
    ids = np.full(SIZE, 70000)
    ids[2 : 8 + index, 3:20] = 1
    ids[26:38, 4 + 2 * index : 20 + 2 * index] = 2
    return ids


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The data set, and what two processes wrote."""
    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("out")
    names = NAMES
    images, annotations = [], []
    for index, name in enumerate(names):
        write_image(data / name, SIZE)
        write_ids(data / f"segments/{index}.png", truth(index))
        images.append(dict(id=1000 - index, file_name=name, height=SIZE[0], width=SIZE[1]))
        segments = [dict(id=70000, category_id=90), dict(id=1, category_id=3), dict(id=2, category_id=3)]
        annotations.append(dict(image_id=1000 - index, file_name=f"{index}.png", segments_info=segments))
    categories = [dict(id=90, name="grass", isthing=0), dict(id=3, name="cat", isthing=1)]
    (data / "data.json").write_text(json.dumps(dict(categories=categories, images=images, annotations=annotations)))
    command = [sys.executable, str(SCRIPT), str(data), str(out)]
    ranks = [subprocess.Popen([*command, str(r), "2"], cwd=ROOT, stderr=subprocess.PIPE, text=True) for r in range(2)]
    for process in ranks:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return data, out


def test_results__label_maps_of_all_images(folders: tuple[Path, Path]) -> None:
    data, out = folders
    number = len(json.loads((data / "data.json").read_text())["images"])
    maps = {path.relative_to(out).as_posix(): np.asarray(Image.open(path)) for path in (out / "labels").rglob("*.png")}
    assert len(maps) == number
    found = sorted((labels == 0).sum() for labels in maps.values())  # things first: class 0 is the cat
    assert found == sorted((truth(index) != 70000).sum() for index in range(number))
    assert np.array_equal(maps["labels/b/0.png"] == 1, truth(1) == 70000)


def test_results__a_reader_of_panoptic_files(folders: tuple[Path, Path]) -> None:
    data, out = folders
    images = json.loads((data / "data.json").read_text())["images"]
    content = json.loads((out / "panoptic.json").read_text())
    assert sorted(a["image_id"] for a in content["annotations"]) == sorted(image["id"] for image in images)
    assert {category["id"] for category in content["categories"]} == {3, 90}
    assert len({a["file_name"] for a in content["annotations"]}) == len(images)
    for annotation in content["annotations"]:
        red, green, blue = np.moveaxis(np.asarray(Image.open(out / "panoptic" / annotation["file_name"]), int), 2, 0)
        ids = red + 256 * green + 65536 * blue
        segments = {info["id"]: info for info in annotation["segments_info"]}
        assert {*np.unique(ids).tolist()} == {*segments}  # what panopticapi checks first
        true = truth(1000 - annotation["image_id"])
        for segment_id, info in segments.items():
            (true_id,) = np.unique(true[ids == segment_id])
            assert np.array_equal(ids == segment_id, true == true_id)
            assert info["category_id"] == (90 if true_id == 70000 else 3)
            assert info["area"] == (true == true_id).sum()


def test_results__pycocotools(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools import mask as api

    data, out = folders
    content = json.loads((data / "data.json").read_text())
    objects = []
    for index, image in enumerate(content["images"]):
        for segment_id in (1, 2):
            mask = truth(index) == segment_id
            code = api.encode(np.asfortranarray(mask.astype(np.uint8)))
            objects.append(
                dict(
                    id=len(objects) + 1,
                    image_id=image["id"],
                    category_id=3,
                    iscrowd=0,
                    area=int(mask.sum()),
                    bbox=api.toBbox(code).tolist(),
                    segmentation=dict(size=code["size"], counts=code["counts"].decode()),
                )
            )
    (tmp_path / "objects.json").write_text(json.dumps(content | dict(annotations=objects)))
    true = COCO(str(tmp_path / "objects.json"))
    evaluation = COCOeval(true, true.loadRes(str(out / "instances.json")), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)
    assert len(json.loads((out / "instances.json").read_text())) == len(objects)
    capsys.readouterr()
