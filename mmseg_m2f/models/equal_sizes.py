"""Images of a batch whose results have the same size, so that they are computed together."""

from collections.abc import Hashable, Sequence
from typing import TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor

Key = TypeVar("Key", bound=Hashable)


def group_equal(keys: Sequence[Key]) -> list[tuple[Key, list[int]]]:
    """Each different key with the numbers of the images that have it, in order of their first."""
    groups: dict[Key, list[int]] = {}
    for image, key in enumerate(keys):
        groups.setdefault(key, []).append(image)
    return list(groups.items())


def take_images(x: Shaped[Tensor, "B ..."], images: Sequence[int]) -> Shaped[Tensor, "n ..."]:
    """Some images of a batch, in ascending order; the batch itself where these are all. Nothing is uploaded."""
    if len(images) == len(x):
        return x
    return torch.stack([x[image] for image in images])
