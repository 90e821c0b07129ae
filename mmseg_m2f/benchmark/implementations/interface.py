"""What the benchmark asks of a model, and what implementations share."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor, nn

from mmseg_m2f.benchmark.setting import Batch

#: What a model returns in training; only its own implementation knows how to read it.
Outputs = Any
Weights = Mapping[str, Tensor]
Masks = list[Bool[Tensor, "B Q _"]]


class Layer(NamedTuple):
    """What one layer predicts."""

    class_logits: Float[Tensor, "B Q K1"]
    mask_logits: Float[Tensor, "B Q H W"]


@runtime_checkable
class Implementation(Protocol):
    """What the benchmark asks of a model."""

    name: str
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Outputs:
        """The network in training, up to its predictions."""

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Targets from the label maps, matching, and all losses with their weights; the step minimises the sum."""

    def step(self) -> None:
        """Clip the gradients and update the weights."""

    def label_maps(self, images: Float[Tensor, "B 3 H W"]) -> list[Int[Tensor, "H W"]]:
        """The result at the size of the images; the model is in evaluation mode."""

    def layers(self, outputs: Outputs) -> list[Layer]:
        """What all supervised layers predict, the result last."""

    def recorded_masks(self) -> AbstractContextManager[Masks]:
        """Collects where each decoder layer attends."""


def make_samples(label_maps: Tensor) -> list[BaseDataElement]:
    """Data samples whose labels are the given maps (B H W), of images without padding."""
    height, width = label_maps.shape[-2:]
    metainfo = dict(img_shape=(height, width), ori_shape=(height, width), pad_shape=(height, width))
    return [
        BaseDataElement(gt_sem_seg=PixelData(data=label_map.unsqueeze(0)), metainfo=metainfo)
        for label_map in label_maps
    ]


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
