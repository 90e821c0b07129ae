"""Static HTML pages: one file, pictures included."""

import base64
import html
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; font-size: .9rem } td, th { padding: .1rem .7rem; text-align: right }
td:first-child, th:first-child { text-align: left } .bar { background: #3a7abd; height: .7rem; display: inline-block }
figure { display: inline-block; margin: .4rem; max-width: 22rem } figure img { max-width: 100%; image-rendering: auto }
figcaption { font-size: .8rem; overflow-wrap: anywhere }
"""


def render_html(title: str, body: str, *, style: str = "") -> str:
    """A page with a title (text) and a body (HTML); `style` is CSS besides that of all pages."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}{style}</style>'
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{html.escape(title)}</h1>{body}</body></html>\n'
    )


def picture_tag(picture: NDArray[np.uint8], *, width: int | None = None, alt: str = "") -> str:
    """An `img` that holds the picture, H W 3 or H W; enlarged without smoothing to `width` CSS pixels, if given."""
    content = BytesIO()
    Image.fromarray(picture).save(content, format="PNG")
    data = base64.b64encode(content.getvalue()).decode()
    size = "" if width is None else f' style="width:{width}px;image-rendering:pixelated"'
    return f'<img alt="{html.escape(alt)}"{size} src="data:image/png;base64,{data}">'


def bar(share: float, *, widest: int | float = 10) -> str:
    """A bar `share` (0 to 1) of `widest` rem long."""
    return f'<span class="bar" style="width:{widest * min(max(share, 0.0), 1.0):.2f}rem"></span>'
