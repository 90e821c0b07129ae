"""Reading JSON: values of a structure, or an error with file and entry."""

import json
from pathlib import Path

import pytest

from mmseg_m2f.errors import InvalidValueError, MissingFileError
from mmseg_m2f.json_files import parse_json, read_json

STRUCTURE = {"history": [{"iteration": int, str: float}], "best?": (str, None), "size?": [int]}
GOOD = {"history": [{"iteration": 3, "mIoU": 0.5}, {"iteration": 4, "mIoU": 1}], "other": [[None]]}


def read(content: object) -> object:
    text = content if isinstance(content, (str, bytes)) else json.dumps(content)
    return parse_json(text, source="a.json", what="some metrics", structure=STRUCTURE, remedy="Delete it.")


def test_parse_json__gives_what_is_there() -> None:
    assert read(GOOD) == GOOD
    assert read(GOOD | {"best": None}) == GOOD | {"best": None}


@pytest.mark.parametrize(
    ("content", "place", "expected", "found"),
    [
        ([], "", "entries history", "a list of 0"),
        ({"best": "x"}, "", "the entry 'history'", "entries best"),
        ({"history": {}}, " at history", "a list", "entries none"),
        ({"history": [GOOD["history"][0], 7]}, r" at history\[1\]", "entries iteration", "7"),
        ({"history": [{"iteration": 3.5}]}, r" at history\[0\]\.iteration", "a whole number", "3.5"),
        ({"history": [{"iteration": True}]}, r" at history\[0\]\.iteration", "a whole number", "True"),
        ({"history": [{"iteration": 3, "mIoU": "1"}]}, r" at history\[0\]\.mIoU", "a number", "'1'"),
        ({"history": [{"iteration": 3, "mIoU": 10**400}]}, r" at history\[0\]\.mIoU", "a number", "10+…"),
        ({"history": [], "best": 7}, " at best", "a text or null", "7"),
        ({"history": [], "size": [4, None]}, r" at size\[1\]", "a whole number", "None"),
    ],
)
def test_parse_json__names_the_entry(content: object, place: str, expected: str, found: str) -> None:
    message = rf"^a\.json: expected some metrics, got {found} instead of {expected}{place}\. Delete it\.$"
    with pytest.raises(InvalidValueError, match=message):
        read(content)


@pytest.mark.parametrize("text", ["", "{", '{"history": [', b"\xff\xfe{}", "{'history': []}", "\ufeff{}", "[1,]"])
def test_parse_json__no_json(text: str | bytes) -> None:
    with pytest.raises(InvalidValueError, match=r"a\.json: expected some metrics, got no JSON \(.*\)\. Delete it\."):
        read(text)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"history":' * 200_000])
def test_parse_json__deeply_nested(text: str) -> None:
    with pytest.raises(InvalidValueError, match=r"a\.json: expected some metrics, got lists or entries inside each"):
        read(text)


def test_read_json__no_such_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(MissingFileError, match="expected some metrics, got no such file"):
            read_json(path, what="some metrics", remedy="Copy it.")


def test_read_json__of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"ä": 1}', encoding="utf-8")
    assert read_json(tmp_path / "a.json", what="x", structure={str: int}, remedy="") == {"ä": 1}
