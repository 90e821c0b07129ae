"""The index of error messages, from code written here and from the package's own."""

import re
from pathlib import Path

import pytest

from docs.site.error_index import error_entries, error_page, remedy_of, split_message

CODE = '''
class UserError(Exception): ...
class BadValueError(UserError): ...
class WorseError(BadValueError): ...

def check_size(size: int) -> None:
    """Refuse sizes below 1.

    More words.
    """
    if size < 1:
        raise BadValueError(f"size={size}: expected at least 1, got {size}. Set size=1.")
    message = "one" if size else f"two {size}"
    raise WorseError(message)

def other() -> None:
    raise ValueError("a fault of the program")
'''


def test_entries__have_text_cause_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core/sizes.py").write_text(CODE)
    first, *others = error_entries(tmp_path)
    assert first.area == "Models"
    assert first.kind == "BadValueError"
    assert first.text == "size=…: expected at least 1, got …."
    assert first.cause == "Refuse sizes below 1.\nsize < 1"
    assert first.remedy == "Set size=1."
    assert [entry.text for entry in others] == ["one", "two …"]


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ("a: expected b, got none. Do that. Or this.", ("a: expected b, got none.", "Do that. Or this.")),
        ("numbers such as 0.5 and file.py alone", ("numbers such as 0.5 and file.py alone", "")),
        ("a, e. g. this; expected more. Do it.", ("a, e. g. this; expected more.", "Do it.")),
    ],
)
def test_split_message__at_the_end_of_the_first_sentence(message: str, parts: tuple[str, str]) -> None:
    assert split_message(message) == parts


def test_package__has_every_raised_error_in_the_index() -> None:
    entries = error_entries()
    assert all(entry.cause for entry in entries)
    assert all(remedy_of(entry) for entry in entries)
    texts = {entry.text for entry in entries}
    assert "batch_size=…: expected at least 1 image." in texts
    page = error_page(entries)
    rows = [line for line in page.splitlines() if line.startswith("| <code>")]
    assert len(rows) == len(entries)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)
