import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mmseg_m2f.datasets.coco_files import class_of_category, describe_classes, read_coco, read_flag, refuse_filter


def content() -> dict:
    return dict(
        images=[dict(id=139, file_name="a.jpg", height=6, width=8)],
        categories=[dict(id=7, name="dog"), dict(id=3, name="cat")],
        annotations=[dict(id=1, image_id=139)],
    )


def write(folder: Path, content: object) -> str:
    (folder / "a.json").write_text(json.dumps(content))
    return str(folder / "a.json")


def test_read_coco__by_id_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = read_coco(write(tmp_path, content()))
    assert file.class_names() == ["dog", "cat"]
    assert file.images[139]["file_name"] == "a.jpg"
    assert class_of_category(file, ["cat", "dog"]) == {7: 1, 3: 0}


def test_describe_classes__numbers_names_and_colours(tmp_path: Path) -> None:
    coloured = content()
    coloured["categories"][0]["color"] = [1, 2, 3]
    file = read_coco(write(tmp_path, coloured))
    described = describe_classes(file, ["cat", "dog"], things={"dog"}, given=dict(source="here"))
    assert described == dict(source="here", classes=("cat", "dog"), category_ids=(3, 7), thing_ids=(1,), stuff_ids=(0,))
    assert describe_classes(file, ["dog"], things=set(), given={})["palette"] == [(1, 2, 3)]
    assert describe_classes(file, ["dog"], things=set(), given=dict(palette=[(9, 9, 9)]))["palette"] == [(9, 9, 9)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"].append(5), "images: expected entries {...} with id"),
        (lambda c: c["images"][0].update(id=[1]), r"images: expected an integer or a text as id, got '\[1\]'"),
        (lambda c: c["images"][0].update(id=True), "expected an integer or a text as id, got 'True'"),
        (lambda c: c["images"][0].update(height="6"), "expected a positive integer as height, got '6'"),
        (lambda c: c["images"][0].update(height=6.5), "expected a positive integer as height"),
        (lambda c: c["images"][0].update(width=0), "expected a positive integer as width, got '0'"),
        (lambda c: c["images"][0].update(file_name=None), "expected a file as file_name, got 'None'"),
        (lambda c: c["images"][0].update(file_name="."), r"expected a file as file_name, got '\.'"),
        (lambda c: c["images"][0].update(file_name="a\0.jpg"), "expected a file as file_name"),
        (lambda c: c["images"][0].update(height=10**400), "expected a positive integer as height"),
        (lambda c: c["categories"][0].update(name=3), "categories: expected a text as name"),
        (lambda c: c["categories"][0].update(name="\ud800"), "categories: expected a text as name"),
        (lambda c: c["annotations"][0].update(image_id={}), "the id of an image as image_id, got {}"),
        (lambda c: c["annotations"].append("x"), "annotations: expected entries {...} with image_id"),
        (lambda c: c["categories"].append(dict(id=7, name="x")), r"each id once, got \[7\] repeatedly"),
        (lambda c: c.update(images={}), "expected the lists categories, images and annotations"),
    ],
)
def test_read_coco__names_the_entry_at_fault(tmp_path: Path, change: Callable[[dict], None], message: str) -> None:
    broken = content()
    change(broken)
    with pytest.raises(ValueError, match=rf"a\.json.*{message}"):
        read_coco(write(tmp_path, broken))


@pytest.mark.parametrize("text", ["", "{", "[" * 100000, "\xff", "null", "3"])
def test_read_coco__what_is_no_coco_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"Annotation file .*a\.json"):
        read_coco(str(tmp_path / "a.json"))


class CountedId(str):
    """An id that counts how often it is compared."""

    comparisons = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        CountedId.comparisons += 1
        return str.__eq__(self, other)


def test_read_coco__compares_repeated_ids_a_few_times_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [*map(CountedId, map(str, range(298))), CountedId("0"), CountedId("0")]
    images = [dict(id=number, file_name="x", height=8, width=8) for number in ids]
    path = write(tmp_path, content())
    monkeypatch.setattr(json, "loads", lambda _: content() | dict(images=images, annotations=[]))
    with pytest.raises(ValueError, match=r"images: expected each id once, got \['0'\] repeatedly"):
        read_coco(path)
    assert CountedId.comparisons <= 10 * len(ids)  # each with each would be 90,000


@pytest.mark.parametrize(("value", "flag"), [(0, False), (1, True), (False, False), (True, True)])
def test_read_flag__zero_one_true_false(value: object, flag: bool) -> None:
    assert read_flag(dict(iscrowd=value), "iscrowd", "x") is flag
    assert read_flag({}, "iscrowd", "x") is False


@pytest.mark.parametrize("colour", [None, "red", [1, 2], [1, 2, 256], [0.5, 0.5, 0.5], [True, 0, 0]])
def test_describe_classes__colours_that_are_none(tmp_path: Path, colour: object) -> None:
    coloured = content()
    coloured["categories"][0]["color"] = colour
    file = read_coco(write(tmp_path, coloured))
    with pytest.raises(ValueError, match=r"a\.json, categories: expected \[red, green, blue\] in 0…255 as color"):
        describe_classes(file, ["dog"], things=set(), given={})


def test_refuse_filter__names_what_takes_its_place() -> None:
    refuse_filter(None, "a.json")
    with pytest.raises(
        ValueError, match=r"a\.json: expected drop_empty and min_size .* got filter_cfg=\{'min_size': 3"
    ):
        refuse_filter(dict(min_size=32), "a.json")
