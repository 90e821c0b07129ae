"""One HTML page with everything in it: table, charts, the results of every head on the same images, failures."""

import base64
from collections.abc import Iterator, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

from PIL import Image

from mmseg_m2f.benchmark.heads.charts import draw_curves, draw_trade_offs
from mmseg_m2f.benchmark.heads.running import Failure
from mmseg_m2f.benchmark.heads.score_table import Row, table

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto; padding: 0 1.5rem;
       max-width: 1500px; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
.pictures th, .pictures td { border: 0; padding: .15rem; text-align: center; }
.pictures th:first-child { max-width: 12rem; white-space: normal; overflow-wrap: break-word; font-weight: 500; }
.best { font-weight: 700; } img { max-width: 100%; height: auto; } .pictures img { width: 200px; max-width: none; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: 13px; }
.remark { color: #666; overflow-wrap: anywhere; }
"""


def page(
    rows: Sequence[Row], failures: Sequence[Failure], *, title: str, remarks: Sequence[str], warnings: Sequence[str]
) -> str:
    """The page; it needs no other file and no network.

    Args:
        remarks: what the figures mean and where they were measured.
        warnings: what speaks against comparing them.
    """
    body = [f"<h1>{escape(title)}</h1>"]
    body += [f"<p><strong>{escape(warning)}</strong></p>" for warning in warnings]
    if rows:
        body += ["<h2>Scores and costs</h2>", *_score_table(rows)]
    body += [f'<p class="remark">{escape(remark)}</p>' for remark in remarks]
    if rows:
        body += ["<h2>Accuracy over cost</h2>", _image(draw_trade_offs(rows), "accuracy over cost", lossless=True)]
        body += ["<h2>Learning curves</h2>", _image(draw_curves(rows), "learning curves", lossless=True)]
        body += _pictures(rows)
    if failures:
        body.append("<h2>Failed runs</h2>")
    for failure in failures:
        run = failure.run
        body.append(f"<p>{escape(run.name)}, seed {run.seed}: exit status {failure.status}, {escape(str(run.log))}</p>")
        body.append(f"<pre>{escape(chr(10).join(failure.last_lines))}</pre>")
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _score_table(rows: Sequence[Row]) -> Iterator[str]:
    header, cells = table(rows)
    best = {
        header.index(name): max(row.scores[name].mean for row in rows if name in row.scores)
        for name in dict.fromkeys(name for row in rows for name in row.scores)
    }
    yield '<div class="scroll"><table><thead><tr>' + "".join(f"<th>{escape(cell)}</th>" for cell in header)
    yield "</tr></thead><tbody>"
    for row, line in zip(rows, cells, strict=True):
        yield "<tr>"
        for index, cell in enumerate(line):
            spread = row.scores.get(header[index])
            mark = ' class="best"' if spread is not None and spread.mean == best[index] and len(rows) > 1 else ""
            yield f"<td{mark}>{escape(cell)}</td>"
        yield "</tr>"
    yield "</tbody></table></div>"


def _pictures(rows: Sequence[Row]) -> Iterator[str]:
    """A table for each kind of result: images across, input, truth and the heads down."""
    kinds = dict.fromkeys(kind for row in rows for picture in row.pictures for kind in picture["kinds"])
    for kind in kinds:
        shown = {index: picture for row in reversed(rows) for index, picture in _with_result(row, kind).items()}
        columns = sorted(shown)
        yield f'<h2>The same images, {escape(kind)}</h2><div class="scroll"><table class="pictures">'
        names = "".join(f"<td>{escape(shown[index]['name'])}</td>" for index in columns)
        yield f"<tr><th></th>{names}</tr>"
        yield _picture_row("input", [shown[index]["input"] for index in columns])
        yield _picture_row("truth", [shown[index]["kinds"][kind].get("truth") for index in columns])
        for row in rows:
            found = _with_result(row, kind)
            if found:
                files = [found[i]["kinds"][kind]["prediction"] if i in found else None for i in columns]
                yield _picture_row(row.name, files)
        yield "</table></div>"


def _with_result(row: Row, kind: str) -> dict[int, dict]:
    return {picture["index"]: picture for picture in row.pictures if kind in picture["kinds"]}


def _picture_row(name: str, files: Sequence[str | None]) -> str:
    cells = []
    for file in files:
        with Image.open(file) if file and Path(file).exists() else Image.new("RGB", (1, 1), "white") as picture:
            cells.append(f"<td>{_image(picture.convert('RGB'), name, lossless=False)}</td>")
    label = escape(name).replace("_", "_<wbr>")
    return f"<tr><th>{label}</th>{''.join(cells)}</tr>"


def _image(picture: Image.Image, text: str, *, lossless: bool) -> str:
    content, form = BytesIO(), "png" if lossless else "jpeg"
    picture.save(content, format=form.upper(), **({} if lossless else dict(quality=88)))
    data = base64.b64encode(content.getvalue()).decode("ascii")
    return f'<img alt="{escape(text)}" src="data:image/{form};base64,{data}">'
