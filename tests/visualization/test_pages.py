import base64
import io
import re

import numpy as np
from PIL import Image

from mmseg_m2f.visualization.pages import bar, picture_tag, render_html


def test_render_html__escapes_the_title_alone() -> None:
    page = render_html("a < b", "<p>c</p>", style="p { color: red }")
    assert page.count("a &lt; b") == 2
    assert "<p>c</p></body>" in page
    assert "p { color: red }</style>" in page


def test_picture_tag__holds_the_pixels() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    tag = picture_tag(pixels, width=48, alt='"x"')
    data = re.search('base64,([^"]+)', tag)[1]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), pixels)
    assert 'alt="&quot;x&quot;"' in tag
    assert "width:48px" in tag


def test_bar__is_as_long_as_the_share() -> None:
    assert "width:5.00rem" in bar(0.5)
    assert "width:4.00rem" in bar(7.0, widest=4)
