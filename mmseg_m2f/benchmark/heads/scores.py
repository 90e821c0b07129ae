"""The scores by which heads are compared, out of what any metric reports, as fractions."""

from collections.abc import Mapping, Sequence

#: What a metric calls a score (behind the last slash), and what the table calls it.
SCORES = {
    "mIoU": "mIoU",
    "PQ": "PQ",
    "AP": "mask AP",
    "segm_mAP": "mask AP",
    "bbox_mAP": "box AP",
    "matching_AP50": "matching AP50",
}
_IN_PERCENT = ("IoUMetric", "CityscapesMetric", "CocoPanopticMetric")  # mmseg's and mmdet's; all others give fractions


def scores_of(metrics: Mapping[str, int | float], *, in_percent: bool) -> dict[str, float]:
    """The scores among some metrics, in [0, 1], by the table's names."""
    found = {
        SCORES[name.rpartition("/")[2]]: value for name, value in metrics.items() if name.rpartition("/")[2] in SCORES
    }
    return {name: value / 100 if in_percent else value for name, value in found.items()}


def check_scores(metrics: Mapping[str, object], *, source: str) -> None:
    """Make sure that there is a score to compare by.

    Raises:
        ValueError: none of `SCORES` is among the metrics.
    """
    if not any(name.rpartition("/")[2] in SCORES for name in metrics):
        raise ValueError(
            f"{source}: expected one of {', '.join(SCORES)} in the report of test_evaluator, got "
            f"{', '.join(metrics) or 'nothing'}. Add mmseg_m2f.SemanticIoU, PanopticQuality or MaskAP to it."
        )


def counts_percent(evaluator: Mapping | Sequence[Mapping] | None) -> bool:
    """Whether the metrics of an evaluator's config are percent instead of fractions."""
    metrics = [evaluator] if isinstance(evaluator, Mapping) else list(evaluator or [])
    return any(str(metric.get("type")).rpartition(".")[2] in _IN_PERCENT for metric in metrics)
