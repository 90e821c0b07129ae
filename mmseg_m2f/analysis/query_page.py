"""Queries of a trained model as one static HTML page."""

import html
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mmseg_m2f.analysis.query_statistics import QueryStatistics
from mmseg_m2f.analysis.query_visits import QueryAnalysis
from mmseg_m2f.engine.hooks.report import MAIN_METRICS
from mmseg_m2f.visualization.pages import bar, picture_tag, render_html

_CLASSES_SHOWN = 3
_STYLE = """
td.text, th.text { text-align: left } img { border: 1px solid #ddd } tr.dead { color: #999 }
.note { color: #555; font-size: .9rem }
"""


def query_page(analysis: QueryAnalysis, *, title: str) -> str:
    """The page: a summary, the decoder layers, and a table of all queries, those matched most often first."""
    statistics = analysis.statistics
    parts = [
        f"<p>{html.escape(summary(analysis))}</p>",
        "<h2>Decoder layers</h2>",
        '<p class="note">Layer 0 is the prediction before the first decoder layer, where the decoder makes one. '
        "“Changed” is the share of segments that are matched with another query than in the layer before.</p>",
        _layer_table(analysis),
        "<h2>Queries</h2>",
        '<p class="note">A query is active in an image where its most probable class is not “no object”. “Matched” '
        "counts the segments that the assigner gives it. Area is the mean share of the image inside its mask, and the "
        "picture shows where, each on its own scale, both over the images in which it is active.</p>",
        _query_table(statistics, analysis.classes),
    ]
    return render_html(title, "".join(parts), style=_STYLE)


def summary(analysis: QueryAnalysis) -> str:
    """One line: images, segments, queries, how many are never used."""
    statistics = analysis.statistics
    never_matched = np.count_nonzero(statistics.matched.sum(1) == 0)
    return (
        f"{statistics.num_images} images with {statistics.segments} segments, {len(statistics.active)} queries: "
        f"{never_matched} are never matched, {len(statistics.dead())} of these are never active either (dead)."
    )


def layer_figures(analysis: QueryAnalysis) -> list[str]:
    """Names of the metrics to show for each layer."""
    given = dict.fromkeys(name for layer in analysis.layers for name in layer)
    return [name for main in MAIN_METRICS for name in given if name.rpartition("/")[2] == main]


def _layer_table(analysis: QueryAnalysis) -> str:
    names = layer_figures(analysis)
    rates = [None, *analysis.statistics.change_rates()]
    rows = []
    for number, (layer, rate) in enumerate(zip(analysis.layers, rates, strict=True)):
        cells = [f"{layer[name]:.4f} {bar(layer[name], widest=5)}" if name in layer else "–" for name in names]
        changed = "–" if rate is None else f"{rate:.1%} {bar(rate, widest=5)}"
        rows.append(f"<tr><td>{number}</td>{''.join(f'<td class=text>{cell}</td>' for cell in [*cells, changed])}</tr>")
    heads = "".join(f"<th class=text>{html.escape(name)}</th>" for name in ("layer", *names, "changed"))
    return f"<table><tr>{heads}</tr>{''.join(rows)}</table>"


def _query_table(statistics: QueryStatistics, classes: Sequence[str]) -> str:
    matched = statistics.matched.sum(1)
    dead = set(statistics.dead().tolist())
    heads = "<th>query</th><th>matched</th><th>active</th><th class=text>classes</th><th>area</th><th>places</th>"
    rows = []
    for query in np.lexsort((-statistics.active, -matched)).tolist():
        active = int(statistics.active[query])
        share = matched[query] / max(statistics.segments, 1)
        area = f"{statistics.area_sum[query] / active:.1%}" if active and statistics.area_sum[query] else "–"
        picture = picture_tag(_heat(statistics.places[query] / active), width=48, alt="places") if active else ""
        cells = [
            f"<td>{query}</td>",
            f"<td>{matched[query]} {bar(share * len(matched) / 4, widest=4)}</td>",
            f"<td>{active / max(statistics.num_images, 1):.0%}</td>",
            f'<td class="text">{_classes(statistics, query, classes)}</td>',
            f"<td>{area}</td>",
            f"<td>{picture}</td>",
        ]
        rows.append(f"<tr{' class=dead' if query in dead else ''}>{''.join(cells)}</tr>")
    return f"<table><tr>{heads}</tr>{''.join(rows)}</table>"


def _classes(statistics: QueryStatistics, query: int, classes: Sequence[str]) -> str:
    """The classes it is matched with most often, else those it predicts."""
    counts = statistics.matched[query] if statistics.matched[query].any() else statistics.predicted[query]
    order = [label for label in np.argsort(-counts, kind="stable")[:_CLASSES_SHOWN] if counts[label]]
    names = [classes[label] if label < len(classes) else str(label) for label in order]
    shares = [f"{name} {counts[label] / counts.sum():.0%}" for name, label in zip(names, order, strict=True)]
    return html.escape(", ".join(shares)) or "–"


def _heat(shares: Float[np.ndarray, "16 16"]) -> np.ndarray:
    """H W 3: white where the mask never is, dark blue where it is most often."""
    colour = np.array([20, 60, 120])
    scaled = shares / max(shares.max(), 1e-9)
    return (255 - scaled[..., None] * (255 - colour)).round().astype(np.uint8)
