"""The page escapes what it shows."""

import numpy as np

from mmseg_m2f.engine.doctor.findings import Finding
from mmseg_m2f.engine.doctor.findings_page import render_page


def test_render_page__escapes_and_counts():
    page = render_page(
        "a<b",
        [Finding("error", "k", "<script>", "r", tuple(f"<{i}>" for i in range(202)))],
        histograms={"train": ({0: 4}, {0: 3, 1: 1, 7: 1, 255: 1})},
        classes=["road & car", "sky"],
        pictures={"Samples": [("x<y", [np.zeros((2, 2, 3), np.uint8)] * 2)]},
    )
    assert "<script>" not in page
    assert "1 error, 0 warnings, 0 notes." in page
    assert "road &amp; car" in page
    assert "and 2 more" in page
    assert "<td>no class</td>" in page
    assert "<td>void</td>" in page
    assert (page.count("<img"), page.count("<figure>")) == (2, 1)
