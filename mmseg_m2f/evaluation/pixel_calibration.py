"""Calibration of the confidence of label maps."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from mmengine.evaluator import BaseMetric

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.evaluation.confidence_groups import (
    ConfidenceGroups,
    answer_figures,
    expected_calibration_error,
    group_answers,
    join_groups,
)
from mmseg_m2f.evaluation.metric_report import MetricReport, fraction_cell
from mmseg_m2f.evaluation.sample_fields import check_sizes, class_names, describe_sample, read_field
from mmseg_m2f.evaluation.semantic_iou import check_labels, semantic_maps
from mmseg_m2f.registry import METRICS


@METRICS.register_module()
class PixelCalibration(BaseMetric):
    """Whether the confidence of each pixel's label is the probability that it is right; all figures in [0, 1].

    `calibration_ECE` is the expected calibration error over 15 bins of equal width, pooled over all pixels;
    `calibration_AURC` the area under the risk-coverage curve, which depends on the order of the confidences alone
    (`evaluation.confidence_groups`); `calibration_accuracy` and `calibration_confidence` are means over pixels, and
    `calibration_unknown` is the mean probability of none of the classes. `calibration_ECE.<class>` is that of the
    pixels that the model labels so; absent where there are none. Void pixels count nowhere.

    Confidences whose log-odds lie in the same step of 1/8 count as equal for AURC. Each image leaves one entry in
    `results`: at most 271 groups for each class that the model finds, whatever the image's size.

    Args:
        ignore_index: Truth label that is not evaluated.
        collect_device: Where a distributed run gathers the entries, "cpu" or "gpu".
        prefix: Put before every name, with a slash.
    """

    default_prefix = ""  # none; mmengine warns where this is unset
    figures: ClassVar[Sequence[str]] = tuple(
        f"calibration_{name}" for name in ("ECE", "AURC", "accuracy", "confidence", "unknown")
    )
    class_figure: ClassVar[str] = "calibration_ECE"

    def __init__(self, *, ignore_index: int = 255, collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ignore_index = ignore_index

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Adds one entry for each sample.

        A sample needs what `SemanticIoU` needs, and `pred_certainty` with `confidence` and `unknown` (1 H W each).

        Raises:
            ValueError: A field is missing, sizes differ, a label is outside the classes, or a confidence outside of
                [0, 1]. The message names the sample.
        """
        classes = class_names(self)
        for sample in data_samples:
            where = describe_sample(self, sample)
            prediction, truth = semantic_maps(sample, where=where)
            certainty = read_field(sample, "pred_certainty", ("confidence", "unknown"), where=where)
            check_sizes(prediction.shape, truth.shape, where=where)
            check_sizes(certainty.confidence.shape[-2:], truth.shape, where=where)
            truth = truth.to(prediction.device).long()
            valid = truth != self.ignore_index
            found, true = prediction.long()[valid], truth[valid]
            check_labels(true, found, num_classes=len(classes), ignore_index=self.ignore_index, where=where)
            groups = group_answers(
                found.cpu().numpy(),
                certainty.confidence.squeeze(0)[valid].cpu().numpy(),
                (found == true).cpu().numpy(),
                exact=False,
                where=where,
            )
            self.results.append((*groups, float(certainty.unknown.squeeze(0)[valid].double().sum())))

    def compute_metrics(self, results: Sequence[tuple]) -> dict[str, float]:
        """Puts the entries together, writes the table, gives the figures.

        Raises:
            ValueError: Not a single pixel has a class in the truth.
        """
        classes = class_names(self)
        groups = join_groups([tuple(entry[:-1]) for entry in results])
        total = groups.counts.sum()
        if not total:
            raise InvalidValueError(
                f"PixelCalibration: expected labelled pixels, got {len(results)} images without any (all pixels are "
                f"{self.ignore_index}). Check the label files and the dataset's label map."
            )
        overall = answer_figures(groups) | dict(unknown=sum(entry[-1] for entry in results) / total)
        return calibration_report(
            "Calibration of pixels", groups, classes, overall=overall, prefix="calibration_"
        ).publish(classes, len(results))


def calibration_report(
    title: str, groups: ConfidenceGroups, classes: Sequence[str], *, overall: Mapping[str, float], prefix: str
) -> MetricReport:
    """The figures of all answers, and the table of the classes that are answered."""
    of_classes = [groups.of_class(label) for label in range(len(classes))]
    counts = np.array([each.counts.sum() for each in of_classes])
    errors = [expected_calibration_error(each) for each in of_classes]
    shares = {
        name: [
            fraction_cell(column.sum() / count if count else None)
            for column, count in zip((getattr(each, field) for each in of_classes), counts, strict=True)
        ]
        for name, field in (("accuracy", "hits"), ("confidence", "confidences"))
    }
    return MetricReport(
        title=title,
        overall=overall,
        class_figure="ECE",
        by_class={int(label): errors[label] for label in np.flatnonzero(counts)},
        columns=dict(ECE=[*map(fraction_cell, errors)], **shares, answers=[*map(str, counts)]),
        prefix=prefix,
    )
