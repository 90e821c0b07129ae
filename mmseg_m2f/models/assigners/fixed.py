"""Query k is matched with the segment of class k (SegViT, arXiv 2210.05844, section 3)."""

from collections.abc import Sequence

import numpy as np
import torch

from mmseg_m2f.core.transfer import upload
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import TASK_UTILS
from mmseg_m2f.structures import Assignment, MaskSampling, Prediction, TargetBatch


@TASK_UTILS.register_module()
class FixedAssigner:
    """Pairs each segment with the query that has the number of its class, in every layer.

    For semantic targets: one segment per class. The first call checks this; later ones do not, because the host may
    have to wait for the device to see the classes.

    Args:
        sampling: the criterion passes its own; nothing is compared here.
    """

    def __init__(self, *, sampling: MaskSampling | None = None) -> None:
        self._checked = False

    def __call__(
        self, predictions: Sequence[Prediction], targets: TargetBatch, *, image_by_image: bool = False
    ) -> Assignment:
        """Pair queries with segments.

        Raises:
            ValueError: there are fewer queries than classes, or a class has two segments; the latter names the image.
        """
        _, num_queries, num_logits = predictions[0].class_logits.shape
        if num_queries < num_logits - 1:
            raise InvalidValueError(
                f"FixedAssigner: query k is matched with class k, so expected at least {num_logits - 1} queries, one "
                f"per class, got {num_queries}. Use AttentionToMaskDecoder or QueryUpsamplingDecoder, or set "
                "decode_head.criterion.assigner to HungarianAssigner."
            )
        if not self._checked:
            _check_one_segment_per_class(targets)
            self._checked = True
        return _pairs_of_classes(targets, len(predictions))


def _pairs_of_classes(targets: TargetBatch, num_layers: int) -> Assignment:
    counts = [[count] * num_layers for count in targets.num_segments]
    columns: list[list[np.ndarray]] = [[], [], []]
    for image, count in enumerate(targets.num_segments):
        columns[0].append(np.repeat(np.arange(num_layers), count))
        columns[1].append(np.full(count * num_layers, image))
        columns[2].append(np.tile(np.arange(count), num_layers))
    pairs = torch.from_numpy(np.stack([np.concatenate(column) for column in columns]).astype(np.int64))
    layers, images, segments = upload(pairs, targets.labels.device).unbind()
    return Assignment(layers, images, targets.labels[images, segments], segments, counts)


def _check_one_segment_per_class(targets: TargetBatch) -> None:
    for name, classes in zip(targets.names, targets.classes_on_host(), strict=True):
        if len(set(classes)) < len(classes):
            raise InvalidValueError(
                f"{name or 'An image'}: FixedAssigner expected one segment per class, got classes {[*classes]}. Train "
                "on semantic labels with a MaskSegmentor, or set decode_head.criterion.assigner to HungarianAssigner."
            )
