"""The scores by which heads are compared, out of what any metric reports, as fractions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mmseg_m2f.config.type_lookup import find_types
from mmseg_m2f.errors import InvalidValueError

#: What a metric calls a score (behind the last slash), and what the table calls it.
SCORES = {
    "mIoU": "mIoU",
    "PQ": "PQ",
    "AP": "mask AP",
    "segm_mAP": "mask AP",
    "segm_AP": "mask AP",
    "bbox_mAP": "box AP",
    "bbox_AP": "box AP",
    "mAP": "mAP",
    "matching_AP50": "matching AP50",
}

Evaluator = Mapping[str, object] | Sequence[Mapping[str, object]] | None


class _Metric(NamedTuple):
    """What a metric reports; of one that is not listed here, whatever is in `SCORES` counts, as a fraction.

    Args:
        columns: what it calls a score, and what the table does.
        asked_by: the argument that lists what is reported, by the beginnings of the names, and its default.
        silent: whether it reports nothing where nothing was detected.
    """

    columns: Mapping[str, str]
    prefix: str = ""
    in_percent: bool = False
    asked_by: tuple[str, str] | None = None
    silent: bool = False


_METRICS = {
    "SemanticIoU": _Metric({"mIoU": "mIoU"}),
    "PanopticQuality": _Metric({"PQ": "PQ"}),
    "MaskAP": _Metric({"AP": "mask AP"}),
    "ObjectMatching": _Metric({"matching_AP50": "matching AP50"}),
    "IoUMetric": _Metric({"mIoU": "mIoU"}, in_percent=True, asked_by=("iou_metrics", "mIoU")),
    "SemSegMetric": _Metric({"mIoU": "mIoU"}, in_percent=True, asked_by=("iou_metrics", "mIoU")),
    "RefSegMetric": _Metric({"mIoU": "mIoU"}, in_percent=True, asked_by=("metric", "mIoU")),
    "CocoPanopticMetric": _Metric({"PQ": "PQ"}, "coco_panoptic", in_percent=True),
    "CocoMetric": _Metric(
        {"segm_mAP": "mask AP", "bbox_mAP": "box AP"}, "coco", asked_by=("metric", "bbox"), silent=True
    ),
    "LVISMetric": _Metric(
        {"segm_AP": "mask AP", "bbox_AP": "box AP"}, "lvis", asked_by=("metric", "bbox"), silent=True
    ),
    "CityScapesMetric": _Metric({"mAP": "mask AP"}, "cityscapes"),
    "VOCMetric": _Metric({"mAP": "VOC mAP"}, "pascal_voc", asked_by=("metric", "mAP")),
    "CityscapesMetric": _Metric({}),
    "DepthMetric": _Metric({}),
    "DumpResults": _Metric({}),
}
_ADVICE = "Add mmseg_m2f.SemanticIoU, PanopticQuality or MaskAP to it."


class _Score(NamedTuple):
    column: str
    in_percent: bool
    silent: bool


def scores_of(metrics: Mapping[str, int | float], evaluator: Evaluator, *, scope: str) -> dict[str, float]:
    """The scores among what an evaluator reported, in [0, 1], by the table's names.

    Of two scores with one name in the table the first counts. A score is 0 where the metric is known to report nothing
    if nothing was detected, and absent where it is below 0, which is how COCO's code says that the truth is empty.

    Args:
        evaluator: the config of what reported the metrics.
        scope: the config's default scope.
    """
    promised = dict(_promised(evaluator, scope=scope))
    found: dict[str, float] = {}
    silent = set(promised)
    for key, value in metrics.items():
        # A whole name, or one that the evaluator of several datasets has put another prefix before.
        name = key if key in promised else next((name for name in promised if key.endswith(f"/{name}")), None)
        silent.discard(name or key)
        column = SCORES.get(key.rpartition("/")[2])
        score = promised[name] if name else column and _Score(column, in_percent=False, silent=False)
        if score and value >= 0:
            found.setdefault(score.column, value / 100 if score.in_percent else value)
    for name, score in promised.items():
        if score.silent and name in silent:
            found.setdefault(score.column, 0.0)
    return found


def check_evaluator(evaluator: Evaluator, *, scope: str) -> None:
    """Make sure, before anything is trained, that an evaluator's config may report a score to compare by.

    Raises:
        ValueError: it reports none, or two of its metrics report one under the same name.
    """
    metrics = list(_metrics(evaluator))
    promised = [name for name, _ in _promised(evaluator, scope=scope)]
    if not promised and all(_known(metric, scope=scope) for metric in metrics):
        names = ", ".join(str(metric["type"]) for metric in metrics)
        raise InvalidValueError(
            f"test_evaluator: expected a metric that reports one of {', '.join(SCORES)}, got {names or 'none'} "
            f"with settings that report none of them. {_ADVICE}"
        )
    twice = sorted({name for name in promised if promised.count(name) > 1})
    if twice:
        raise InvalidValueError(
            f"test_evaluator: expected a name for each score, got two metrics that report {', '.join(twice)}. "
            "Give one of them another prefix."
        )


def check_scores(scores: Mapping[str, float], metrics: Mapping[str, object], *, source: str) -> None:
    """Make sure that a test has given a score to compare by.

    Raises:
        ValueError: no score, or one that is no fraction.
    """
    if not scores:
        raise InvalidValueError(
            f"{source}: expected one of {', '.join(SCORES)} in the report of test_evaluator, got "
            f"{', '.join(metrics) or 'nothing'}. {_ADVICE}"
        )
    for name, score in scores.items():
        if score > 1:
            raise InvalidValueError(
                f"{source}: expected a fraction in [0, 1] as {name}, got {score:g} from a metric of your own. Let it "
                "report fractions."
            )


def _metrics(evaluator: Evaluator) -> Iterator[Mapping]:
    """The metrics' configs; an evaluator with a type of its own lists them in `metrics`."""
    for metric in [evaluator] if isinstance(evaluator, Mapping) else evaluator or ():
        if "metrics" in metric:
            yield from _metrics(metric["metrics"])  # type: ignore[arg-type]
        else:
            yield metric


def _promised(evaluator: Evaluator, *, scope: str) -> Iterator[tuple[str, _Score]]:
    """Whole names of the scores that known metrics report if all goes well, and what they are."""
    for metric in _metrics(evaluator):
        known = _known(metric, scope=scope)
        items = metric.get("metric_items")  # of COCO and LVIS, without the `bbox_` or `segm_` before them
        if known is None or metric.get("format_only") or metric.get("boundary"):
            continue
        asked = metric.get(*known.asked_by) if known.asked_by else ""
        prefix = metric.get("prefix") or known.prefix
        for name, column in known.columns.items():
            if not name.startswith((asked,) if isinstance(asked, str) else tuple(asked)):
                continue
            if not items or name.rpartition("_")[2] in items:
                yield f"{prefix}/{name}" if prefix else name, _Score(column, known.in_percent, known.silent)


def _known(metric: Mapping, *, scope: str) -> _Metric | None:
    """What the metric of a config is known to report, also where its class is derived from a known one."""
    kind = metric["type"]
    classes = find_types(kind, scope=scope) if isinstance(kind, str) else [kind]
    names = [base.__name__ for found in classes for base in getattr(found, "__mro__", ())]
    return next((_METRICS[name] for name in names if name in _METRICS), None)
