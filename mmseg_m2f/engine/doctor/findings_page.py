"""The doctor's findings as one HTML file, pictures included."""

import html
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmseg_m2f.engine.doctor.facts import Histogram
from mmseg_m2f.engine.doctor.findings import Finding
from mmseg_m2f.structures import IGNORE_INDEX
from mmseg_m2f.visualization.pages import bar, picture_tag, render_html

_MOST_FILES = 200  # of a finding

_STYLE = """
.finding { border-left: .4rem solid #888; margin: .6rem 0; padding: .4rem .8rem; background: #f6f6f6 }
.error { border-color: #c0271d } .warning { border-color: #d98200 } .note { border-color: #3a7abd }
.finding ul { margin: .2rem 0; font-size: .85rem; overflow-wrap: anywhere }
figure { max-width: none } figure img { max-width: 20rem; margin-right: .3rem }
figcaption { overflow-wrap: anywhere }
"""


def render_page(
    title: str,
    findings: Sequence[Finding],
    *,
    histograms: Mapping[str, tuple[Histogram, Histogram]],
    classes: Sequence[str],
    pictures: Mapping[str, Sequence[tuple[str, Sequence[NDArray[np.uint8]]]]],
) -> str:
    """The page.

    Args:
        histograms: For each loop the label values as stored and as mapped.
        pictures: Title of a section -> captions, each with pictures H W 3 that stand side by side.
    """
    parts = [f"<p>{_summary(findings)}</p>", *map(_finding, findings)]
    for loop, (stored, mapped) in histograms.items():
        if mapped:
            parts += [f"<h2>Label values: {html.escape(loop)}</h2>", _table(stored, mapped, classes)]
    for section, shown in pictures.items():
        parts += [f"<h2>{html.escape(section)}</h2>", *(_figure(caption, each) for caption, each in shown)]
    return render_html(title, "".join(parts), style=_STYLE)


def _summary(findings: Sequence[Finding]) -> str:
    numbers = {severity: sum(f.severity == severity for f in findings) for severity in ("error", "warning", "note")}
    return ", ".join(f"{number} {name}{'' if number == 1 else 's'}" for name, number in numbers.items()) + "."


def _finding(finding: Finding) -> str:
    files = "".join(f"<li>{html.escape(file)}</li>" for file in finding.files[:_MOST_FILES])
    more = len(finding.files) - _MOST_FILES
    rest = f"<li>and {more} more</li>" if more > 0 else ""
    text = f"<b>{html.escape(finding.key)}</b>: {html.escape(finding.text)} <i>{html.escape(finding.remedy)}</i>"
    listed = f"<ul>{files}{rest}</ul>" if files else ""
    return f'<div class="finding {finding.severity}">{text}{listed}</div>'


def _table(stored: Histogram, mapped: Histogram, classes: Sequence[str]) -> str:
    most = max(mapped.values())
    rows = []
    for value in sorted(set(stored) | set(mapped)):
        name = classes[value] if 0 <= value < len(classes) else "void" if value == IGNORE_INDEX else "no class"
        rows.append(
            f"<tr><td>{value}</td><td>{html.escape(str(name))}</td><td>{stored.get(value, 0):,}</td>"
            f'<td>{mapped.get(value, 0):,}</td><td style="text-align:left">'
            f"{bar(mapped.get(value, 0) / most, widest=18)}</td></tr>"
        )
    head = "<tr><th>value</th><th>class</th><th>pixels stored</th><th>after mapping</th><th></th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _figure(caption: str, pictures: Sequence[NDArray[np.uint8]]) -> str:
    images = "".join(map(picture_tag, pictures))
    return f"<figure>{images}<figcaption>{html.escape(caption)}</figcaption></figure>"
