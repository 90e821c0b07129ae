"""Low-rank changes of weight matrices, and weights that hold them (LoRA, arXiv 2106.09685)."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from mmseg_m2f.errors import InvalidValueError

#: How the parts of a low-rank change are called beside `weight`.
DOWN, UP, SCALE = "lora_down", "lora_up", "lora_scale"


def add_low_rank(
    weight: Float[Tensor, "O *I"], down: Float[Tensor, "R *I"], up: Float[Tensor, "O R"], scale: Float[Tensor, ""]
) -> Float[Tensor, "O *I"]:
    """`weight + scale · up @ down`, computed in float32, in the dtype of the weight; of a matrix or a convolution."""
    change = (up.float() @ down.float().flatten(1)).view_as(weight)
    return (weight.float() + scale.float() * change).to(weight.dtype)


def merge_low_rank(weights: Mapping[str, Tensor], *, prefix: str = "") -> dict[str, Tensor]:
    """The same model without low-rank changes, by names: each is added to the weight beside it.

    Args:
        prefix: only below names that start with it.

    Raises:
        ValueError: a weight is missing, as in checkpoints of trained weights alone.
    """
    merged = dict(weights)
    for name in [name for name in weights if name.startswith(prefix) and name.endswith(f".{SCALE}")]:
        layer = name.removesuffix(SCALE)
        if f"{layer}weight" not in weights:
            raise InvalidValueError(
                f"Weights with low-rank changes (LoRA): expected {layer}weight, to which a change is added, got none. "
                "Checkpoints of TrainableOnly hold trained weights alone; take their config and tools/publish.py to "
                "write a whole model first."
            )
        parts = [merged.pop(f"{layer}{part}") for part in (DOWN, UP, SCALE)]
        merged[f"{layer}weight"] = add_low_rank(merged[f"{layer}weight"], *parts)
    return merged
