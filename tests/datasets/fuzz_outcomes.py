"""What fuzzed cases share: changes of files, how an oracle refuses, and the two outcomes to compare."""

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from mmseg_m2f.errors import UserError

JUNK = (
    *(None, True, False, -1, 0, 1, 2, 7.5, 0.5, 1e9, 1e300, -1e9, float("nan"), float("inf"), 10**400, 2**31, 2**63),
    *(
        "",
        "x",
        "1",
        "NaN",
        "\ud800",
        [],
        [[]],
        {},
        [None],
        [1, 2, 3],
        [[[[1]]]],
        {"a": {}},
        [[0.1, 0.1, 0.9, 0.1, 0.9, 0.9]],
    ),
)


class Invalid(Exception):
    """The oracle does not know what the file says: it has to be refused."""


def need(condition: object) -> None:
    if not condition:
        raise Invalid


def places(node: object, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value in a JSON file."""
    if path:
        yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def change(content: dict, draw: random.Random) -> None:
    """One value becomes junk, another number or string, goes, is repeated, or changes places with a neighbour."""
    path = draw.choice([*places(content)])
    node = content
    for key in path[:-1]:
        node = node[key]
    value, kind = node[path[-1]], draw.randrange(8)
    number = type(value) in (int, float) and not isinstance(value, bool)
    if kind < 2 and number:
        node[path[-1]] = draw.choice(
            [value + 1, -value, value * 0.01, value + 0.5, value * 1000, str(value), value - 1]
        )
    elif kind < 2 and isinstance(value, str) and value:
        place = draw.randrange(len(value))
        node[path[-1]] = draw.choice([value[:place], value[:place] + chr(draw.randrange(32, 130)) + value[place + 1 :]])
    elif kind == 2:
        del node[path[-1]]
    elif kind == 3 and isinstance(node, list):
        node.append(copy.deepcopy(value))
    elif kind == 4 and isinstance(node, list) and len(node) > 1:
        draw.shuffle(node)
    elif kind == 5 and isinstance(value, list) and value and all(type(v) in (int, float) for v in value):
        node[path[-1]] = [v / 8 for v in value]
    else:
        node[path[-1]] = copy.deepcopy(draw.choice(JUNK))


def spoil_text(text: str, draw: random.Random) -> bytes:
    """The file with one byte changed, without its end, or with something in front."""
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    kind = draw.randrange(4)
    if kind == 0:
        data[draw.randrange(len(data))] = draw.randrange(256)
    elif kind == 1:
        del data[draw.randrange(len(data)) :]
    elif kind == 2:
        place = draw.randrange(len(data))
        data[place:place] = draw.choice([b"[" * 5000, b"{", b"\x00", b"NaN", b"1e999", b'"', b","])
    else:
        data[:0] = draw.choice([b"\xef\xbb\xbf", b"\xff\xfe", b" ", b"//"])
    return bytes(data)


def outcomes(folder: Path, oracle: Callable[[], object], package: Callable[[], object]) -> tuple[object, object]:
    """What the oracle says and what the package does; "refused" where it is an error that names a file below."""
    try:
        expected = oracle()
    except Invalid:
        expected = "refused"
    try:
        found = package()
    except UserError as error:
        found = "refused" if str(folder) in str(error) else f"an error without the file: {error}"
    return expected, found
