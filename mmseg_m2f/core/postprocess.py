"""From the last prediction to maps (arXiv 2107.06278, section 3.4)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def semantic_scores(
    class_logits: Float[Tensor, "B Q K1"], mask_logits: Float[Tensor, "B Q H W"]
) -> Float[Tensor, "B K H W"]:
    """Per-pixel class scores: how much each query votes for a class times where it lies.

    In [0, Q] and not normalised over K: neither logits nor probabilities. A pixel that no query covers has
    scores near zero.
    """
    class_probs = class_logits.softmax(-1)[..., :-1]  # drop "no object"
    return torch.einsum("bqk,bqhw->bkhw", class_probs, mask_logits.sigmoid())


def resize_maps(maps: Float[Tensor, "B C _ _"], size: tuple[int, int]) -> Float[Tensor, "B C H W"]:
    """Bilinear, corners not aligned, no antialiasing; the maps themselves if the size is right already."""
    if maps.shape[-2:] == torch.Size(size):
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)
