"""Text from outside in Markdown: names and messages that are shown as they are, never read as marks."""

import re

_MARKS = re.compile(r"[\\`*|<>\[\]&#~]|(?<![^\W_])_|_(?![^\W_])")  # an underscore between letters is none


def escape_markdown(text: str) -> str:
    """`text` on one line, with a backslash before each character that Markdown or HTML would read as a mark."""
    return _MARKS.sub(r"\\\g<0>", " ".join(text.split()))
