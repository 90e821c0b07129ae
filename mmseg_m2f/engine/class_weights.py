"""Class weights of losses: lists of numbers, whose order is that of the classes' names."""

from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from torch import nn

from mmseg_m2f.errors import InvalidValueError


def check_class_weights(model: nn.Module, classes: Sequence[str]) -> None:
    """Check that each loss weighs as many classes as the training data names, and log which weight is whose.

    Weights have no names. Where they differ, the log pairs them with the names, so that a list made for another order
    shows. A further weight at the end is that of "no object".

    Raises:
        ValueError: A loss has another number of weights.
    """
    said = set()
    for path, part in model.named_modules():
        weights = _numbers(getattr(part, "class_weight", None))
        if weights is None:
            continue
        if len(weights) not in (len(classes), len(classes) + 1):
            names = ", ".join(map(str, classes[:8])) + (" …" if len(classes) > 8 else "")
            raise InvalidValueError(
                f"model.{path}.class_weight has {len(weights)} entries, but train_dataloader.dataset has "
                f"{len(classes)} classes ({names}); expected one weight for each, in this order. Correct the list."
            )
        if len(set(weights[: len(classes)])) > 1 and tuple(weights) not in said:
            said.add(tuple(weights))
            pairs = [f"{name} {weight:g}" for name, weight in zip([*classes, "no object"], weights, strict=False)]
            print_log(f"model.{path}.class_weight, by position: {', '.join(pairs)}.", logger="current")


def _numbers(weights: object) -> list[float] | None:
    """Weights as a list; None where there are none, one for all, or the name of a file."""
    if isinstance(weights, torch.Tensor):
        weights = weights.tolist()
    if not isinstance(weights, Sequence) or isinstance(weights, str) or not weights:
        return None
    return [float(weight) for weight in weights]
