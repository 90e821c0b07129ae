"""On torch's `meta` device, where a tensor made on the host, or a value read back to it, raises.

The other operators read values: suppression and masked convolutions give as many results as values decide, and regions
are taken in pieces by their sizes.
"""

from collections.abc import Callable

import pytest
import torch
from mmcv.ops import (
    PSAMask,
    bbox_overlaps,
    carafe,
    deform_conv2d,
    modulated_deform_conv2d,
    sigmoid_focal_loss,
    softmax_focal_loss,
)
from torch import Tensor


def features(*shape: int) -> Tensor:
    return torch.zeros(shape, device="meta", requires_grad=True)


def regions() -> Tensor:
    return torch.zeros(3, 5, device="meta")


def targets() -> Tensor:
    return torch.zeros(4, dtype=torch.long, device="meta")


OPERATORS: dict[str, Callable[[], Tensor]] = {
    "deform_conv2d": lambda: deform_conv2d(features(2, 4, 8, 8), features(2, 18, 8, 8), features(6, 4, 3, 3), 1, 1),
    "modulated_deform_conv2d": lambda: modulated_deform_conv2d(
        features(2, 4, 8, 8), features(2, 18, 8, 8), features(2, 9, 8, 8), features(6, 4, 3, 3), features(6), 1, 1
    ),
    "carafe": lambda: carafe(features(2, 4, 5, 6), features(2, 25, 10, 12), 5, 1, 2),
    "psa_mask": lambda: PSAMask("collect", (3, 5))(features(2, 15, 4, 6)),
    "sigmoid_focal_loss": lambda: sigmoid_focal_loss(features(4, 3), targets()),
    "softmax_focal_loss": lambda: softmax_focal_loss(features(4, 3), targets()),
    "bbox_overlaps": lambda: bbox_overlaps(regions()[:, :4], regions()[:, :4]),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators__stay_on_the_device_forward_and_backward(name):
    result = OPERATORS[name]()
    assert result.device.type == "meta"
    if result.requires_grad:
        result.sum().backward()
    else:
        assert name == "bbox_overlaps"
