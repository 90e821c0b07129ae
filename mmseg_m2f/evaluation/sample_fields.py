"""What the metrics read from the dataset and from a sample, with messages that name the metric and the sample."""

from collections.abc import Collection, Mapping, Sequence

from jaxtyping import Bool
from mmengine.evaluator import BaseMetric
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.samples import dense_masks

_REMEDIES = dict(
    pred_panoptic_seg="Evaluate a MaskDetector with test_cfg.panoptic=True.",
    pred_instances="Evaluate a MaskDetector with test_cfg.instance=True.",
    pred_sem_seg="Evaluate a semantic segmentor, or a MaskDetector with test_cfg.semantic=True.",
    pred_certainty="Set model.test_cfg.temperature (1.0, or what tools/calibrate.py fits), and for a MaskDetector "
    "semantic=True.",
    gt_instances="Load masks in the test pipeline (mmdet.LoadAnnotations with with_mask=True) and pack them.",
    ignored_instances="Load labels with the masks of crowds, or neither.",
    gt_sem_seg="Load semantic labels in the test pipeline and pack them.",
)


def class_names(metric: BaseMetric) -> Sequence[str]:
    """The classes of the dataset that is evaluated.

    Raises:
        ValueError: The dataset has none.
    """
    classes = (metric.dataset_meta or {}).get("classes")
    if not classes:
        raise InvalidValueError(
            f"{type(metric).__name__}: expected class names in the dataset's metainfo, got {metric.dataset_meta}. "
            "Pass metainfo=dict(classes=[...]) to the validation dataset."
        )
    return classes


def describe_sample(metric: BaseMetric, sample: Mapping) -> str:
    """How messages begin: the metric, and the sample's file or else its number."""
    name = sample.get("img_path") or sample.get("seg_map_path") or f"sample {len(metric.results)}"
    return f"{type(metric).__name__}, {name}"


def read_field(sample: Mapping, key: str, parts: Collection[str] = (), *, where: str) -> BaseDataElement:
    """The structure under `key`, which the evaluator passes as a dict and other callers as an object.

    Raises:
        ValueError: It is missing, or one of its `parts` is.
    """
    value = sample.get(key)
    found = [] if value is None else sorted(value.keys())
    if value is None or not set(parts) <= set(found):
        wanted = f"'{key}' with {', '.join(parts)}" if parts else f"'{key}'"
        raise InvalidValueError(
            f"{where}: expected {wanted} in the sample, got {sorted(sample) if value is None else found}. "
            f"{_REMEDIES[key]}"
        )
    return BaseDataElement(**value) if isinstance(value, Mapping) else value


def has_parts(sample: Mapping, key: str, parts: Collection[str]) -> bool:
    """Whether `read_field` would find them; mmdet packs an empty structure where nothing was loaded."""
    return key in sample and set(parts) <= set(sample[key].keys())


def read_masks(objects: BaseDataElement) -> Bool[Tensor, "N H W"]:
    """Masks of a structure that has `labels` and `masks` (a tensor or mmdet's), on the device of the labels."""
    return dense_masks(objects, objects.labels.device)


def check_sizes(predicted: Sequence[int], true: Sequence[int], *, where: str) -> None:
    """Compares heights and widths.

    Raises:
        ValueError: They differ.
    """
    if tuple(predicted) != tuple(true):
        raise InvalidValueError(
            f"{where}: expected a prediction of the annotation's size {tuple(true)}, got {tuple(predicted)}. Load the "
            "annotation after the resizing transforms of the test pipeline, so that it keeps the original size."
        )
