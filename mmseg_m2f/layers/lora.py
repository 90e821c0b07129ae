"""Low-rank adaptation of linear layers (LoRA, arXiv 2106.09685): `y = W x + b + (α/r) · U A dropout(x)`.

W and b keep their values; A (r × in) starts kaiming-uniform, U (out × r) at 0, so that training starts from the model
as it is. Written from the paper. Deviation: none; scaling by α/√r (rsLoRA) is not offered.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmseg_m2f.core.low_rank import DOWN, SCALE, UP, add_low_rank
from mmseg_m2f.errors import InvalidValueError, UnknownNameError
from mmseg_m2f.layers.matrix_products import Linear, linear


@dataclass(frozen=True)
class LoRASettings:
    """What of a model is adapted, and how.

    Attributes:
        rank: r.
        alpha: α; the rank, for a factor of 1, unless given.
        dropout: share of the inputs of A that is left out in training.
        layers: ends of the names of the linear layers.
    """

    rank: int
    alpha: int | float | None = None
    dropout: int | float = 0.0
    layers: Sequence[str] = ("attn.qkv", "attn.proj")

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InvalidValueError(f"lora.rank: expected a number of at least 1, such as 16, got {self.rank}.")
        if not 0 <= self.dropout < 1:
            raise InvalidValueError(f"lora.dropout: expected a share in [0, 1), got {self.dropout!r}.")

    @classmethod
    def read(cls, settings: Mapping[str, object]) -> "LoRASettings":
        """The settings of a config.

        Raises:
            KeyError: an unknown key; the message names the nearest.
            ValueError: a number out of its range, or no rank.
        """
        known = [field.name for field in fields(cls)]
        for key in settings:
            if key not in known:
                raise UnknownNameError(
                    f"lora: expected keys out of {', '.join(known)}, got '{key}'.{_near(key, known)}"
                )
        if "rank" not in settings:
            raise InvalidValueError(f"lora: expected a rank, such as dict(rank=16), got {dict(settings)}.")
        if isinstance(settings["rank"], bool) or not isinstance(settings["rank"], int):
            raise InvalidValueError(f"lora.rank: expected a whole number such as 16, got {settings['rank']!r}.")
        return cls(**settings)  # type: ignore[arg-type]


class LoRALinear(nn.Linear):
    """A linear layer whose weight and bias are fixed, plus a low-rank change that is trained.

    `weight` and `bias` keep their names, so that checkpoints without the change load as ever.
    """

    lora_down: nn.Parameter
    lora_up: nn.Parameter
    lora_scale: Tensor
    lora_dropout: float

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        down = linear(F.dropout(x, self.lora_dropout, self.training), self.lora_down)
        return linear(x, self.weight, self.bias) + linear(down * self.lora_scale, self.lora_up)


def add_lora(model: nn.Module, settings: LoRASettings) -> None:
    """Fix all parameters of a model and adapt its linear layers, in place.

    Raises:
        KeyError: the model has no linear layer of one of the names; the message lists those that it has.
    """
    names = {name for name, module in model.named_modules() if type(module) in (nn.Linear, Linear)}
    model.requires_grad_(False)
    for end in settings.layers:
        found = [name for name in names if name == end or name.endswith(f".{end}")]
        if not found:
            known = sorted({_without_numbers(name) for name in names})
            raise UnknownNameError(
                f"lora.layers: expected ends of names of linear layers, got '{end}', with which none ends."
                f"{_near(end, known)} There are: {', '.join(known) or 'none'}."
            )
        for name in found:
            _adapt(model.get_submodule(name), settings)


def merge_lora(model: nn.Module) -> bool:
    """Add the changes to the weights, in place, and leave plain linear layers; gives whether there were any."""
    adapted = [module for module in model.modules() if isinstance(module, LoRALinear)]
    for layer in adapted:
        with torch.no_grad():
            layer.weight.copy_(add_low_rank(layer.weight, layer.lora_down, layer.lora_up, layer.lora_scale))
        for name in (DOWN, UP, SCALE):
            delattr(layer, name)
        layer.__class__ = Linear  # type: ignore[assignment]
    return bool(adapted)


def _adapt(layer: nn.Module, settings: LoRASettings) -> None:
    """Turn a linear layer into an adapted one; it stays the same object, with its hooks."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    layer.__class__ = LoRALinear
    down, up = weight.new_empty(settings.rank, weight.shape[1]), weight.new_zeros(weight.shape[0], settings.rank)
    nn.init.kaiming_uniform_(down, a=math.sqrt(5))
    layer.lora_down, layer.lora_up = nn.Parameter(down), nn.Parameter(up)
    alpha = settings.rank if settings.alpha is None else settings.alpha
    # A buffer, so that weights can be merged without the config that they were trained with.
    layer.register_buffer(SCALE, torch.tensor(alpha / settings.rank, dtype=torch.float32, device=weight.device))
    layer.lora_dropout = settings.dropout  # type: ignore[assignment]


def _without_numbers(name: str) -> str:
    parts = name.split(".")
    last = max((i for i, part in enumerate(parts) if part.isdigit()), default=-1)
    return ".".join(parts[last + 1 :])


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f" Nearest: {', '.join(near)}." if near else ""
