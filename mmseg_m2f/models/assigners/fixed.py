"""Class k is answered by query k (SegViT, arXiv 2210.05844, section 3)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmseg_m2f.core.targets import MaskSampling, TargetBatch
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import TASK_UTILS
from mmseg_m2f.structures import Assignment, MaskTarget, Prediction


@TASK_UTILS.register_module()
class FixedAssigner:
    """Pairs each segment with the query that has the number of its class, in every layer.

    For semantic targets: one segment per class. That is looked at in the first call alone, because every look waits for
    the device.

    Args:
        sampling: the criterion passes its own; nothing is compared here.
    """

    def __init__(self, *, sampling: MaskSampling | None = None) -> None:
        self._seen = False

    def __call__(self, predictions: Sequence[Prediction], targets: TargetBatch) -> Assignment:
        """Pair queries with segments.

        Raises:
            ValueError: there are fewer queries than classes, or a class has two segments; the latter names the image.
        """
        _, num_queries, num_logits = predictions[0].class_logits.shape
        if num_queries < num_logits - 1:
            raise InvalidValueError(
                f"FixedAssigner: query k answers for class k, so expected at least {num_logits - 1} queries, one per "
                f"class, got {num_queries}. Use AttentionToMaskDecoder or QueryUpsamplingDecoder, or set "
                "decode_head.criterion.assigner to HungarianAssigner."
            )
        if not self._seen:
            for target in targets.targets:
                _check_one_segment_per_class(target)
            self._seen = True
        return _pairs_of_classes(targets.targets, len(predictions))


def _pairs_of_classes(targets: Sequence[MaskTarget], num_layers: int) -> Assignment:
    columns: list[tuple[Tensor, ...]] = []
    for image, target in enumerate(targets):
        queries, segments = (x.repeat(num_layers) for x in target.labels.sort())
        layers = torch.arange(num_layers, device=queries.device).repeat_interleave(target.num_segments)
        columns.append((layers, torch.full_like(queries, image), queries, segments))
    layers, images, queries, segments = (torch.cat(parts) for parts in zip(*columns, strict=True))
    counts = [[target.num_segments] * num_layers for target in targets]
    return Assignment(layers, images, queries, segments, counts)


def _check_one_segment_per_class(target: MaskTarget) -> None:
    if len(target.labels.unique()) < target.num_segments:
        raise InvalidValueError(
            f"{target.name or 'An image'}: FixedAssigner expected one segment per class, got classes "
            f"{target.labels.tolist()}. Train on semantic labels with a MaskSegmentor, or set "
            "decode_head.criterion.assigner to HungarianAssigner."
        )
