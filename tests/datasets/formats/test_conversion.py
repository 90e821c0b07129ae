"""Foreign formats: what is written in them is read back, as label maps and as objects, by our own loaders."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_lengths

from mmseg_m2f.datasets import CocoInstance, LoadLabelMap
from mmseg_m2f.datasets.formats.conversion import FORMATS, convert_dataset
from tests.datasets.formats import foreign_data
from tests.datasets.stored_files import write_grey_png

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

WRITERS: dict[str, Callable[[Path], None]] = {
    "cityscapes": foreign_data.write_cityscapes,
    "cvat": partial(foreign_data.write_pascal_voc, of_cvat=True),
    "label-folder": partial(foreign_data.write_label_folder, colours=True),
    "labelme": foreign_data.write_labelme,
    "pascal-voc": partial(foreign_data.write_pascal_voc, of_cvat=False),
    "yolo": foreign_data.write_yolo,
}
#: What our classes background, cat and dog are there.
MEANING = {"cityscapes": (0, 13, 11), "pascal-voc": (0, 1, 2)}
INSTANCES = "gtFine/val/town/c_gtFine_instanceIds.png"
ARGUMENTS: dict[str, dict] = {"labelme": dict(classes=foreign_data.CLASSES)}


@pytest.fixture(params=sorted(WRITERS))
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, dict]:
    """Format, folder and arguments."""
    WRITERS[request.param](tmp_path / "source")
    arguments = dict(ARGUMENTS.get(request.param, {}))
    if request.param == "label-folder":
        arguments["labelmap"] = tmp_path / "source/labelmap.txt"
    return request.param, tmp_path / "source", arguments


def name_in(format: str, split: str) -> str:
    first = foreign_data.SPLITS[split][0]
    return f"town/{first}" if format == "cityscapes" else first


def test_writers__cover_every_format() -> None:
    assert sorted(WRITERS) == sorted(FORMATS)


def test_convert_dataset__label_maps_are_read_back(foreign: tuple, tmp_path: Path) -> None:
    format, source, arguments = foreign
    report = convert_dataset(source, tmp_path / "ours", format=format, to="labels", **arguments)
    assert report.images == {"train": 2, "val": 1}
    meaning = np.asarray(MEANING.get(format, (0, 1, 2)), np.uint8)
    for split in ("train", "val"):
        name = name_in(format, split)
        file = tmp_path / f"ours/labels/{split}/{name}.png"
        read = LoadLabelMap()(dict(seg_map_path=str(file), seg_fields=[], reduce_zero_label=False))["gt_seg_map"]
        np.testing.assert_array_equal(read, meaning[foreign_data.label_map()])
        assert (tmp_path / f"ours/images/{split}/{name}.png").is_file()
    assert "data = dict(root=" in report.data
    assert report.classes[meaning[1]] in ("cat", "car", "aeroplane")


def test_convert_dataset__objects_are_read_back(foreign: tuple, tmp_path: Path) -> None:
    format, source, arguments = foreign
    if format == "label-folder":
        with pytest.raises(ValueError, match=r"has no objects, a label map alone.*Convert to labels"):
            convert_dataset(source, tmp_path / "ours", format=format, to="objects", **arguments)
        return
    report = convert_dataset(source, tmp_path / "ours", format=format, to="objects", **arguments)
    assert report.objects == {"train": 6, "val": 3}
    dataset = CocoInstance(
        data_root=str(tmp_path / "ours"),
        ann_file="instances_train.json",
        data_prefix=dict(img_path="images/train"),
        metainfo=dict(classes=tuple(report.classes)),
        pipeline=[
            dict(type="mmengine.LoadImageFromFile"),
            dict(type="mmdet.LoadAnnotations", with_mask=True, with_bbox=True),
        ],
    )
    loaded = dataset[0] | {}
    meaning = MEANING.get(format, (0, 1, 2))
    expected = {(meaning[label], mask.tobytes()) for label, mask in foreign_data.masks()}
    found = zip(loaded["gt_bboxes_labels"].tolist(), loaded["gt_masks"].masks.astype(bool), strict=True)
    assert {(label, mask.tobytes()) for label, mask in found} == expected


def test_label_folder__indices_with_names_and_without_splits(tmp_path: Path) -> None:
    foreign_data.image(tmp_path / "source/images/x.jpg")
    foreign_data.save(tmp_path / "source/labels/x.png", foreign_data.label_map())
    report = convert_dataset(
        tmp_path / "source", tmp_path / "ours", format="label-folder", to="labels", classes=["a", "b", "c"]
    )
    assert report.images == {"train": 1}
    np.testing.assert_array_equal(Image.open(tmp_path / "ours/labels/train/x.png"), foreign_data.label_map())


def test_labelme__a_group_is_one_object_and_what_no_shape_covers_is_void(tmp_path: Path) -> None:
    foreign_data.write_labelme(tmp_path / "source")
    for file in (tmp_path / "source").rglob("*.json"):
        content = json.loads(file.read_text())
        for shape in content["shapes"][:2]:
            shape["group_id"] = 7
        file.write_text(json.dumps(content))
    report = convert_dataset(tmp_path / "source", tmp_path / "objects", format="labelme", to="objects")
    assert report.objects == {"train": 4, "val": 2}
    assert list(report.classes) == ["cat", "dog"]
    convert_dataset(tmp_path / "source", tmp_path / "labels", format="labelme", to="labels")
    labels = np.asarray(Image.open(tmp_path / "labels/labels/val/c.png"))
    assert (labels[foreign_data.label_map() == 0] == 255).all()


def labelme(**change: object) -> str:
    return json.dumps(dict(shapes=[dict(label="cat", points=[[1, 1], [9, 1], [9, 9]]) | change]))


@pytest.mark.parametrize(
    ("format", "file", "content", "message"),
    [
        ("yolo", "labels/val/c.txt", "1 0.1 0.1 0.5 0.5\n", r"c.txt, line 1: .*at least 3 points.*Boxes"),
        ("yolo", "labels/val/c.txt", "9 0.1 0.1 0.5 0.5 0.2 0.2\n", r"c.txt, line 1: expected a class below 3"),
        ("yolo", "labels/val/c.txt", "cat 0.1\n", r"c.txt, line 1: expected numbers"),
        ("yolo", "data.yaml", "train: images/train\n", r"data.yaml: expected names"),
        ("labelme", "val/c.json", '{"shapes": [{"label": "cow", "points": []}]}', r"c.json: shape 0 is a 'cow'"),
        ("labelme", "val/c.json", '{"shapes": [{"label": "cat", "points": [[1, 2]], "shape_type": "point"}]}', "point"),
        ("labelme", "val/c.json", '{"shape', r"c.json: expected LabelMe's JSON"),
        ("labelme", "val/c.json", '{"shapes": ' + "[" * 100_000, r"c.json: expected LabelMe's JSON"),
        ("labelme", "val/c.json", '{"shapes": [5]}', r"c.json: expected shapes with a label.*got 5 as shape 0"),
        ("labelme", "val/c.json", labelme(points="abc"), r"c.json: expected shapes with a label"),
        ("labelme", "val/c.json", labelme(group_id=[1]), r"c.json: expected shapes with a label"),
        ("labelme", "val/c.json", labelme(points=[[1, 1], [9, 1], [9, float("nan")]]), r"shape 0: .*finite.*got nan"),
        ("labelme", "val/c.json", labelme(points=[[1, 1], [9, 1], [9, 900]]), r"shape 0: .*within the image"),
        ("labelme", "val/c.json", labelme(points=[[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]]), r"shape 0: .*in pixels"),
        ("yolo", "labels/val/c.txt", "1 10 10 20 10 20 20\n", r"c.txt, line 1: .*fractions .*got class 1 and 10.0"),
        ("yolo", "labels/val/c.txt", "1 0.1 nan 0.2 0.1 0.2 0.2\n", r"c.txt, line 1: .*fractions .*and nan"),
        ("yolo", "labels/val/c.txt", "nan 0.1 0.1 0.2 0.1 0.2 0.2\n", r"c.txt, line 1: .*got class nan"),
        ("yolo", "data.yaml", "names: [cat\ntrain: images/train\n", r"data.yaml: expected YAML"),
        (
            "yolo",
            "data.yaml",
            "names: [a, no, c]\ntrain: images/train\n",
            r"texts as names, got False .*quotes",
        ),
        ("yolo", "data.yaml", "names: [a, null]\ntrain: images/train\n", r"expected texts as names, got None"),
        (
            "yolo",
            "data.yaml",
            "names: {0: a, 2: c}\ntrain: images/train\n",
            r"from 0 without a gap, got \[0, 2",
        ),
        ("yolo", "data.yaml", "names: [a, a]\ntrain: images/train\n", r"the name of each class once.*got \['a'\]"),
        ("yolo", "labels/val/c.txt", "1 0.1 0.1 0.5 0.1 0_5 0.5\n", r"c.txt, line 1: expected numbers"),
        ("labelme", "val/c.json", labelme(shape_type=7), r"c.json: expected shapes with a label"),
        (
            "labelme",
            "val/c.json",
            '{"shapes": [], "imageHeight": 48, "imageWidth": 32}',
            r"on 48 × 32 .*has 24 × 32",
        ),
        (
            "labelme",
            "val/c.json",
            '{"shapes": [], "imageHeight": "24"}',
            r"instead of a whole number or null at imageHeight",
        ),
        ("cvat", "labelmap.txt", "cat:1,2,3::\ndog:1,2,3::\n", r"a colour for each class, got \(1, 2, 3\) twice"),
        ("cvat", "labelmap.txt", "cat:1,2,3::\ncat:1,2,4::\n", r"the name of each class once.*got \['cat'\]"),
        ("cvat", "ImageSets/Segmentation/val.txt", "c\nc\n", r"val.txt: expected each name once, got \['c'\]"),
        ("cvat", "ImageSets/Segmentation/val.txt", "../c\n", r"val.txt: expected names of images below the folder"),
        ("yolo", "data.yaml", "names: cat\ntrain: images/train\n", r"data.yaml: expected names.*got cat"),
        ("yolo", "images/val/c.png", "no picture", r"c.png: expected a complete picture"),
        ("cvat", "SegmentationClass/c.png", "no picture", r"c.png: expected a complete picture"),
        ("pascal-voc", "SegmentationClass/c.png", "no picture", r"c.png: expected a complete picture"),
        ("cvat", "labelmap.txt", "background:0,0,0::\ncat:200,10\n", r"labelmap.txt, line 2: expected name:red"),
        ("cvat", "labelmap.txt", "background:0,0,0::\n", r"pixels have a colour that is no class's, such as \(200, 10"),
        ("cvat", "ImageSets/Segmentation/val.txt", "nothing\n", r"nothing.png: no such mask"),
    ],
)
def test_convert_dataset__names_the_file_at_fault(
    tmp_path: Path, format: str, file: str, content: str, message: str
) -> None:
    WRITERS[format](tmp_path / "source")
    (tmp_path / "source" / file).write_text(content)
    arguments = ARGUMENTS.get(format, {})
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        convert_dataset(tmp_path / "source", tmp_path / "ours", format=format, to="labels", **arguments)


def test_convert_dataset__refuses_a_mask_of_another_size(tmp_path: Path) -> None:
    foreign_data.write_label_folder(tmp_path / "source", colours=False)
    foreign_data.save(tmp_path / "source/masks/val/c.png", np.zeros((5, 6), np.uint8))
    with pytest.raises(ValueError, match=r"24 × 32 pixels .*its annotation 5 × 6"):
        convert_dataset(
            tmp_path / "source", tmp_path / "ours", format="label-folder", to="labels", classes=["a", "b", "c"]
        )


def convert_with(
    tmp_path: Path, format: str, file: str, pixels: np.ndarray | Image.Image, stored_as: str = "PNG"
) -> list[np.ndarray]:
    """The masks of the objects of image c, where a mask of a valid data set is replaced."""
    WRITERS[format](tmp_path / "source")
    (tmp_path / "source" / file).unlink()
    picture = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    picture.save(tmp_path / "source" / file, format=stored_as)
    convert_dataset(tmp_path / "source", tmp_path / "ours", format=format, to="objects")
    content = json.loads((tmp_path / "ours/instances_val.json").read_text())
    return [run_lengths.decode(each["segmentation"]).astype(bool) for each in content["annotations"]]


def test_pascal_voc__more_than_255_objects_stay_apart(tmp_path: Path) -> None:
    """16-bit numbers, which a conversion to 8-bit colours cuts off at 255."""
    numbers = foreign_data.object_map().astype(np.uint16)
    numbers[numbers > 0] += 300
    masks = convert_with(tmp_path, "pascal-voc", "SegmentationObject/c.png", numbers)
    np.testing.assert_array_equal(masks, [mask for _, mask in foreign_data.masks()])


def test_pascal_voc__palette_entries_of_one_colour_stay_apart(tmp_path: Path) -> None:
    picture = Image.fromarray(foreign_data.object_map())
    picture.putpalette([0, 0, 0, *[9] * 765])
    masks = convert_with(tmp_path, "pascal-voc", "SegmentationObject/c.png", picture)
    np.testing.assert_array_equal(masks, [mask for _, mask in foreign_data.masks()])


@pytest.mark.parametrize(
    ("format", "file", "pixels", "stored_as", "said"),
    [
        ("pascal-voc", "SegmentationObject/c.png", foreign_data.object_map(), "JPEG", "JPEG"),
        (
            "pascal-voc",
            "SegmentationObject/c.png",
            foreign_data.object_map()[:5],
            "PNG",
            "expected the size of the label",
        ),
        (
            "pascal-voc",
            "SegmentationClass/c.png",
            foreign_data.label_map() + 40,
            {},
            "a label that is no class's",
        ),
        ("cvat", "SegmentationClass/c.png", foreign_data.label_map().astype(np.uint16), "PNG", "8 bits, got I;16"),
        (
            "cityscapes",
            INSTANCES,
            np.full((24, 32), 26001, np.uint16),
            {},
            "other labels",
        ),
        (
            "cityscapes",
            INSTANCES,
            np.zeros((9, 9), np.uint16),
            {},
            "expected the size",
        ),
    ],
)
def test_convert_dataset__refuses_masks_that_disagree(
    tmp_path: Path, format: str, file: str, pixels: np.ndarray, stored_as: str, said: str
) -> None:
    with pytest.raises(ValueError, match=rf"c.*png: .*{said}"):
        convert_with(tmp_path, format, file, pixels, stored_as)


def test_convert_dataset__refuses_a_full_target_and_wrong_arguments(tmp_path: Path) -> None:
    foreign_data.write_yolo(tmp_path / "source")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").touch()
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        convert_dataset(tmp_path / "source", tmp_path / "full", format="yolo", to="objects")
    with pytest.raises(ValueError, match="yolo names its classes itself"):
        convert_dataset(tmp_path / "source", tmp_path / "ours", format="yolo", to="objects", classes=["a"])
    with pytest.raises(ValueError, match="with label-folder alone, got yolo"):
        convert_dataset(tmp_path / "source", tmp_path / "ours", format="yolo", to="objects", labelmap="a.txt")
    for format in FORMATS:
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises((FileNotFoundError, ValueError), match="expected"):
            convert_dataset(tmp_path / "empty", tmp_path / "ours", format=format, to="labels")


def test_convert_dataset__masks_are_read_as_stored(tmp_path: Path) -> None:
    """Grey of two bits, which Pillow spreads over 0…255; JPEG changes values."""
    foreign_data.write_label_folder(tmp_path / "source", colours=False)
    write_grey_png(tmp_path / "source/masks/val/c.png", foreign_data.label_map(), 2)
    arguments = dict(format="label-folder", to="labels", classes=["a", "b", "c"])
    convert_dataset(tmp_path / "source", tmp_path / "ours", **arguments)
    np.testing.assert_array_equal(Image.open(tmp_path / "ours/labels/val/c.png"), foreign_data.label_map())
    Image.fromarray(foreign_data.label_map()).save(tmp_path / "source/masks/val/c.png", format="JPEG")
    with pytest.raises(ValueError, match=r"c.png: expected class indices .*JPEG, whose compression"):
        convert_dataset(tmp_path / "source", tmp_path / "other", **arguments)
