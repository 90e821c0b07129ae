"""How many different positions the channels of a feature map respond to (arXiv 2308.12894, section 3.4)."""

from jaxtyping import Float
from torch import Tensor


def spatial_coverage(maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B"]:
    """How many positions the channels attend to together, in [1, min(C, H·W)].

    Each channel spreads the weight 1 over the image by a softmax; a position counts by the largest weight it gets. C
    means that every channel attends to one position of its own, 1 that all attend to the same.
    """
    return maps.float().flatten(2).softmax(-1).amax(1).sum(-1)
