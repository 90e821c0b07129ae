"""Calibration of the confidence of detected objects.

Deviation from "Multivariate Confidence Calibration for Object Detection" (arXiv 2004.13546): bins of the confidence
alone, not of place and size.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from mmengine.evaluator import BaseMetric

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.evaluation.confidence_groups import answer_figures, group_answers, join_groups
from mmseg_m2f.evaluation.mask_ap import judge_detections
from mmseg_m2f.evaluation.object_overlaps import DetectedObjects, TrueObjects, read_objects
from mmseg_m2f.evaluation.pixel_calibration import calibration_report
from mmseg_m2f.evaluation.sample_fields import class_names, describe_sample, has_parts, read_field
from mmseg_m2f.registry import METRICS


@METRICS.register_module()
class ObjectCalibration(BaseMetric):
    """Whether the confidence of each object is the probability that it is right; all figures in [0, 1].

    An object is right if COCO's matching gives it a true object of its class with an IoU of 0.5 or more: in the order
    of scores, each takes the free object that it overlaps most. Detections on crowds and of no true object of their
    own count nowhere. All other detections count, however low their confidence.

    `object_calibration_ECE` is the expected calibration error over 15 bins of equal width, pooled over images and
    classes; `object_calibration_AURC` the area under the risk-coverage curve (`evaluation.confidence_groups`);
    `object_calibration_accuracy` and `object_calibration_confidence` are means over detections.
    `object_calibration_ECE.<class>` is that of one class; absent where nothing of it is detected.

    Args:
        collect_device: Where a distributed run gathers the entries, "cpu" or "gpu".
        prefix: Put before every name, with a slash.
    """

    default_prefix = ""  # none; mmengine warns where this is unset
    figures: ClassVar[Sequence[str]] = tuple(
        f"object_calibration_{name}" for name in ("ECE", "AURC", "accuracy", "confidence")
    )
    class_figure: ClassVar[str] = "object_calibration_ECE"

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Adds one entry for each sample, in mmdet's layout with `confidences` in `pred_instances`; see `read_objects`.

        Raises:
            ValueError: A field is missing, sizes differ, a class is out of range, or a confidence outside of [0, 1].
        """
        num_classes = len(class_names(self))
        for sample in data_samples:
            where = describe_sample(self, sample)
            detected, true = read_objects(sample, num_classes, where=where)
            if not has_parts(sample, "pred_instances", ("confidences",)):
                raise InvalidValueError(
                    f"{where}: expected 'pred_instances' with confidences, got "
                    f"{sorted(sample['pred_instances'].keys())}. Set model.test_cfg.score_temperature: 1.0, or what "
                    "tools/calibrate.py fits."
                )
            confidences = read_field(sample, "pred_instances", where=where).confidences.double().cpu().numpy()
            labels, judged, hits = judge_confidences(detected, true, confidences)
            self.results.append(tuple(group_answers(labels, judged, hits, exact=True, where=where)))

    def compute_metrics(self, results: Sequence[tuple]) -> dict[str, float]:
        """Puts the entries together, writes the table, gives the figures.

        Raises:
            ValueError: Not a single object was detected.
        """
        classes = class_names(self)
        groups = join_groups([tuple(entry) for entry in results])
        if not groups.counts.sum():
            raise InvalidValueError(
                f"ObjectCalibration: expected detected objects, got {len(results)} images without any. Set "
                "model.test_cfg.score_threshold lower, or train longer."
            )
        return calibration_report(
            "Calibration of objects",
            groups,
            classes,
            overall=answer_figures(groups),
            prefix="object_calibration_",
        ).publish(classes, len(results))


def judge_confidences(
    detected: DetectedObjects, true: TrueObjects, confidences: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class, confidence and whether it is right of each detection that counts; matched in the order of scores."""
    order = np.argsort(-detected.scores, kind="stable")  # confidences of equal value keep the order of their scores
    by_confidence = DetectedObjects(detected.labels[order], confidences[order], detected.masks.select(order))
    found = judge_detections(by_confidence, true, max_per_class=len(order))
    hits, wrong = found.hits[:, 0, 0], found.wrong[:, 0, 0]
    counts = hits | wrong
    return found.labels[counts], found.scores[counts], hits[counts]
