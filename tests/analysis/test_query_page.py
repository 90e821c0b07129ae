import numpy as np
import torch

from mmseg_m2f.analysis.query_page import layer_figures, query_page, summary
from mmseg_m2f.analysis.query_statistics import QueryStatistics
from mmseg_m2f.analysis.query_visits import QueryAnalysis


def analysis() -> QueryAnalysis:
    """One image: query 0 is matched with the sky, query 1 is active without a partner, query 2 is dead."""
    statistics = QueryStatistics.empty(3, 2, 2)
    logits = torch.tensor([[4.0, 0, 0], [0, 4, 0], [0, 0, 4]])
    masks = torch.zeros(3, 16, 16, dtype=torch.bool)
    masks[0, :8] = True
    partners = [np.array([1]), np.array([0])]
    statistics.add_image(logits, masks, partners=partners, labels=np.array([0]))
    layers = [{"mIoU": 0.25, "IoU.sky": 0.1}, {"mIoU": 0.5, "IoU.sky": 0.2}]
    return QueryAnalysis(("sky", "<b>"), statistics, layers)


def test_query_page__lists_queries_matched_most_first_and_layers() -> None:
    page = query_page(analysis(), title="Queries: a < b")
    assert "<h1>Queries: a &lt; b</h1>" in page
    rows = page.split("<h2>Queries</h2>")[1].split("<tr")[2:]
    assert [row.split("<td>")[1].split("<")[0] for row in rows] == ["0", "1", "2"]
    assert "sky 100%" in rows[0]
    assert "50.0%" in rows[0]  # its area
    assert "&lt;b&gt; 100%" in rows[1]
    assert rows[2].startswith(" class=dead")
    assert "0.5000" in page
    assert "100.0%" in page.split("<h2>Queries</h2>")[0]  # the only segment changed its query


def test_summary__counts_unmatched_and_dead_queries() -> None:
    assert summary(analysis()) == (
        "1 images with 1 segments, 3 queries: 2 are never matched, 1 of these are never active either (dead)."
    )


def test_layer_figures__are_the_main_ones() -> None:
    assert layer_figures(analysis()) == ["mIoU"]
