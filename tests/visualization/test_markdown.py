import pytest

from mmseg_m2f.visualization.markdown import escape_markdown


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("mask2former_r50_ade20k-512", "mask2former_r50_ade20k-512"),
        ("a|b", r"a\|b"),
        ("<script>alert(1)</script>", r"\<script\>alert(1)\</script\>"),
        ("[x](http://y) `z` *w*", r"\[x\](http://y) \`z\` \*w\*"),
        ("__init__ a\\|b", r"\_\_init\_\_ a\\\|b"),
        ("two\n\nlines\r\n| cell |", r"two lines \| cell \|"),
        ("&lt;b&gt;", r"\&lt;b\&gt;"),
        ("straße 路", "straße 路"),
    ],
)
def test_escape_markdown__marks_are_text(text: str, escaped: str) -> None:
    assert escape_markdown(text) == escaped
