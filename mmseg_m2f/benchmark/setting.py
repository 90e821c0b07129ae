"""What is measured: sizes, counts, device, and the synthetic images that every implementation gets."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmseg_m2f.benchmark.made_samples import make_object_samples
from mmseg_m2f.errors import InvalidValueError

_GRID = 16  # label maps are made of 16 × 16 blocks
_STRIDE = 32  # of the coarsest map of a backbone


@dataclass(frozen=True)
class Setting:
    """One row of a benchmark.

    Args:
        size: height and width of the images in pixels, a multiple of 32.
        batch: B.
        objects: classes in each label map, hence segments per image.
        points: sampled points per mask, where masks are compared at points.
        dtype: of the activations, by autocast; weights and optimizer stay float32.

    Raises:
        ValueError: a size or count that no batch can be made for.
    """

    size: int = 512
    batch: int = 2
    objects: int = 10
    queries: int = 100
    classes: int = 150
    points: int = 12544
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.size <= 0 or self.size % _STRIDE:
            raise InvalidValueError(f"size: expected a positive multiple of {_STRIDE} pixels, got {self.size}.")
        if not 1 <= self.objects <= min(self.classes, _GRID**2):
            raise InvalidValueError(
                f"objects: expected 1…{min(self.classes, _GRID**2)} (one class each, {self.classes} classes), got "
                f"{self.objects}. Lower objects or raise classes."
            )
        for name in ("batch", "queries", "points"):
            if getattr(self, name) < 1:
                raise InvalidValueError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InvalidValueError("device: expected one that torch sees, got cuda without a GPU. Use cpu.")

    @property
    def title(self) -> str:
        """The setting in one line."""
        return (
            f"{self.size}², batch {self.batch}, {self.objects} objects, {self.queries} queries, {self.classes} "
            f"classes, {self.dtype}, {self.device}"
        )

    def autocast(self) -> torch.autocast:
        """The context that gives activations their `dtype`."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == "bfloat16")


class Batch(NamedTuple):
    """Normalised images and what is to be learnt from them.

    Attributes:
        label_maps: the class of each pixel.
        classes: of each image, in ascending order, known on the host.
        objects: the same as one object per class; see `make_object_samples`.
    """

    images: Float[Tensor, "B 3 H W"]
    label_maps: Int[Tensor, "B H W"]
    classes: list[tuple[int, ...]]
    objects: list[BaseDataElement]


def make_batch(setting: Setting, seed: int) -> Batch:
    """Random images, and label maps of blocks in which each of `objects` classes occurs; none is void."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(setting.batch, 3, setting.size, setting.size, generator=generator)
    label_maps, present = [], []
    for _ in range(setting.batch):
        classes = torch.randperm(setting.classes, generator=generator)[: setting.objects]
        blocks = classes[torch.randint(setting.objects, (_GRID**2,), generator=generator)]
        blocks[: setting.objects] = classes
        present.append(tuple(sorted(classes.tolist())))
        shuffled = blocks[torch.randperm(_GRID**2, generator=generator)].view(_GRID, _GRID)
        side = setting.size // _GRID
        label_maps.append(shuffled.repeat_interleave(side, 0).repeat_interleave(side, 1))
    on_device = torch.stack(label_maps).to(setting.device)
    return Batch(images.to(setting.device), on_device, present, make_object_samples(on_device, present))
