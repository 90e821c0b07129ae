"""What the benchmark asks of a model, and what implementations share."""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmseg_m2f.benchmark.setting import Batch

#: What a model returns in training; only its own implementation knows how to read it.
Outputs = Any
Weights = Mapping[str, Tensor]
#: Height and width of the smallest images that a backbone and its pixel decoder take.
LEAST_SIZE = 64
Masks = list[Bool[Tensor, "B Q _"]]


class Layer(NamedTuple):
    """What one layer predicts."""

    class_logits: Float[Tensor, "B Q K1"]
    mask_logits: Float[Tensor, "B Q H W"]


@runtime_checkable
class Implementation(Protocol):
    """What the benchmark asks of a model.

    Attributes:
        least_size: height and width of the smallest images that it takes, a multiple of 32.
    """

    name: str
    model: nn.Module
    optimizer: torch.optim.Optimizer
    least_size: int

    def forward(self, batch: Batch) -> Outputs:
        """The network in training, up to its predictions; reads the targets where it makes noisy copies of them."""

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Targets, matching, and all losses with their weights; the step minimises the sum."""

    def step(self) -> None:
        """Clip the gradients and update the weights."""

    def predict(self, images: Float[Tensor, "B 3 H W"]) -> list[Int[Tensor, "H W"]] | list[InstanceData]:
        """Label maps or objects, at the size of the images; the model is in evaluation mode."""


@runtime_checkable
class LabelMapImplementation(Implementation, Protocol):
    """A Mask2Former whose layers can be compared with those of another, and that gives label maps."""

    def layers(self, outputs: Outputs) -> list[Layer]:
        """What all supervised layers predict, the result last."""

    def recorded_masks(self) -> AbstractContextManager[Masks]:
        """Collects where each decoder layer attends."""


def least_size_to_choose_from(num_queries: int) -> int:
    """Height and width of the smallest images with as many cells at strides 8, 16, 32 and 64 as queries."""
    size = LEAST_SIZE
    while sum(math.ceil(size / stride) ** 2 for stride in (8, 16, 32, 64)) < num_queries:
        size += 32
    return size


def only_losses(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What mmengine adds up to the total, each a number as it makes them."""
    return {name: value.mean() for name, value in named.items() if "loss" in name}


@contextmanager
def masks_of_layers(layers: nn.ModuleList, argument: str, num_heads: int) -> Iterator[Masks]:
    """Where decoder layers attend, from their argument that says per head (B·M Q N) where they must not."""
    recorded: Masks = []

    def record(_: nn.Module, __: tuple, kwargs: dict[str, Tensor]) -> None:
        recorded.append(~kwargs[argument].bool().unflatten(0, (-1, num_heads))[:, 0])

    hooks = [layer.register_forward_pre_hook(record, with_kwargs=True) for layer in layers]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()
