"""The doctor's findings as one HTML file, pictures included."""

import html
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmseg_m2f.engine.doctor.facts import Histogram
from mmseg_m2f.engine.doctor.findings import Finding
from mmseg_m2f.visualization.pages import bar, picture_tag, render_html

_STYLE = """
.finding { border-left: .4rem solid #888; margin: .6rem 0; padding: .4rem .8rem; background: #f6f6f6 }
.error { border-color: #c0271d } .warning { border-color: #d98200 } .note { border-color: #3a7abd }
.finding ul { margin: .2rem 0; font-size: .85rem; overflow-wrap: anywhere }
"""


def render_page(
    title: str,
    findings: Sequence[Finding],
    *,
    histograms: Mapping[str, tuple[Histogram, Histogram]],
    classes: Sequence[str],
    pictures: Mapping[str, Sequence[tuple[str, NDArray[np.uint8]]]],
) -> str:
    """The page.

    Args:
        histograms: For each loop the label values as stored and as mapped.
        pictures: Title of a section -> captions and pictures, H W 3.
    """
    parts = [f"<p>{_summary(findings)}</p>", *map(_finding, findings)]
    for loop, (stored, mapped) in histograms.items():
        if mapped:
            parts += [f"<h2>Label values: {html.escape(loop)}</h2>", _table(stored, mapped, classes)]
    for section, shown in pictures.items():
        parts += [f"<h2>{html.escape(section)}</h2>", *(_figure(caption, picture) for caption, picture in shown)]
    return render_html(title, "".join(parts), style=_STYLE)


def _summary(findings: Sequence[Finding]) -> str:
    counts = [f"{sum(f.severity == s for f in findings)} {s}s" for s in ("error", "warning", "note")]
    return ", ".join(counts) + "."


def _finding(finding: Finding) -> str:
    files = "".join(f"<li>{html.escape(file)}</li>" for file in finding.files[:8])
    more = f"<li>... {len(finding.files) - 8} more</li>" if len(finding.files) > 8 else ""
    text = f"<b>{html.escape(finding.key)}</b>: {html.escape(finding.text)} <i>{html.escape(finding.remedy)}</i>"
    return f'<div class="finding {finding.severity}">{text}<ul>{files}{more}</ul></div>'


def _table(stored: Histogram, mapped: Histogram, classes: Sequence[str]) -> str:
    most = max(mapped.values())
    rows = []
    for value in sorted(set(stored) | set(mapped)):
        name = classes[value] if 0 <= value < len(classes) else ""
        rows.append(
            f"<tr><td>{value}</td><td>{html.escape(str(name))}</td><td>{stored.get(value, 0):,}</td>"
            f'<td>{mapped.get(value, 0):,}</td><td style="text-align:left">'
            f"{bar(mapped.get(value, 0) / most, widest=18)}</td></tr>"
        )
    head = "<tr><th>value</th><th>class</th><th>pixels stored</th><th>after mapping</th><th></th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _figure(caption: str, picture: NDArray[np.uint8]) -> str:
    return f"<figure>{picture_tag(picture)}<figcaption>{html.escape(caption)}</figcaption></figure>"
