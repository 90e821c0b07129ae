"""Low-rank adaptation of linear layers (LoRA, arXiv 2106.09685): `y = W x + b + (α/r) · U A dropout(x)`.

W and b keep their values; A (r × in) starts kaiming-uniform, U (out × r) at 0, so that training starts from the model
as it is. Of a convolution, A is a convolution of the same kernel to r channels, and U one of a pixel. Written from the
paper, which has linear layers alone; scaling by α/√r (rsLoRA) is not offered.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmseg_m2f.core.low_rank import DOWN, SCALE, UP, add_low_rank, merge_low_rank
from mmseg_m2f.errors import InvalidValueError, UnknownNameError
from mmseg_m2f.layers.matrix_products import (
    Linear,
    PointwiseConv,
    is_pointwise,
    linear,
    pointwise_conv,
    use_fast_products,
)

#: Ends of the names of what is adapted in a transformer's blocks.
ATTENTION = ("attn.qkv", "attn.proj")


@dataclass(frozen=True)
class LoRASettings:
    """What of a model is adapted, and how.

    Attributes:
        rank: r.
        alpha: α; the rank, for a factor of 1, unless given.
        dropout: share of the inputs of A that is left out in training.
        layers: ends of the names of the linear layers and convolutions; unless given, the attention's matrices of a
            transformer, and of other backbones all that can be adapted.
    """

    rank: int
    alpha: int | float | None = None
    dropout: int | float = 0.0
    layers: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InvalidValueError(f"lora.rank: expected a number of at least 1, such as 16, got {self.rank}.")
        if not 0 <= self.dropout < 1:
            raise InvalidValueError(f"lora.dropout: expected a share in [0, 1), got {self.dropout!r}.")
        if self.alpha is not None and not self.alpha > 0:
            raise InvalidValueError(f"lora.alpha: expected a number above 0, got {self.alpha!r}.")
        if self.layers is not None and (isinstance(self.layers, str) or not self.layers):
            example = self.layers or "attn.qkv"
            raise InvalidValueError(
                f"lora.layers: expected a list of names, such as ['{example}'], got {self.layers!r}. Leave it out to "
                "adapt what suits the backbone."
            )

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


class LoRAConv2d(nn.Conv2d):
    """The same for a convolution."""

    lora_down: nn.Parameter
    lora_up: nn.Parameter
    lora_scale: Tensor
    lora_dropout: float

    def forward(self, x: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O H1 W1"]:
        base = pointwise_conv(x, self.weight, self.bias) if is_pointwise(self) else super().forward(x)
        dropped = F.dropout(x, self.lora_dropout, self.training)
        down = F.conv2d(dropped, self.lora_down, None, self.stride, self.padding, self.dilation)
        return base + pointwise_conv(down * self.lora_scale, self.lora_up[..., None, None])


def add_lora(model: nn.Module, settings: LoRASettings, *, unless_given: Sequence[str] | None = ATTENTION) -> None:
    """Fix all parameters of a model and adapt its layers, in place.

    Args:
        unless_given: what is adapted where the settings name no layers; None for all that can be.

    Raises:
        KeyError: the model has no such layer of one of the names; the message lists those that it has.
    """
    names = {name for name, module in model.named_modules() if _is_adaptable(module)}
    model.requires_grad_(False)
    ends = settings.layers if settings.layers is not None else unless_given
    if ends is None:
        ends = sorted(names) or [""]
    for end in ends:
        found = [name for name in names if name == end or name.endswith(f".{end}")]
        if not found:
            known = sorted({_without_numbers(name) for name in names})
            raise UnknownNameError(
                "lora.layers: expected ends of names of linear layers or of convolutions that are not divided into "
                f"groups, got '{end}', with which none ends.{_near(end, known)} There are: "
                f"{', '.join(known) or 'none'}."
            )
        for name in found:
            _adapt(model.get_submodule(name), settings)


def merge_lora(model: nn.Module) -> bool:
    """Add the changes to the weights, in place, and leave plain layers; gives whether there were any."""
    adapted = [module for module in model.modules() if isinstance(module, LoRALinear | LoRAConv2d)]
    for layer in adapted:
        with torch.no_grad():
            layer.weight.copy_(add_low_rank(layer.weight, layer.lora_down, layer.lora_up, layer.lora_scale))
        for name in (DOWN, UP, SCALE):
            delattr(layer, name)
        layer.__class__ = nn.Linear if isinstance(layer, LoRALinear) else nn.Conv2d  # type: ignore[assignment]
        use_fast_products(layer)
    return bool(adapted)


def merge_foreign_lora(model: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Merge low-rank changes of a checkpoint into the weights of a model that has none; runs before they are loaded."""
    if any(is_adapted(module) for module in model.modules()):
        return
    merged = merge_low_rank(state_dict, prefix=prefix)
    for name in [name for name in state_dict if name not in merged]:
        del state_dict[name]
    state_dict.update(merged)


def is_adapted(layer: nn.Module) -> bool:
    """Whether a layer has a low-rank change."""
    return isinstance(layer, LoRALinear | LoRAConv2d)


def _is_adaptable(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d) and type(layer) in (nn.Conv2d, PointwiseConv):
        return layer.groups == 1 and layer.padding_mode == "zeros"
    return type(layer) in (nn.Linear, Linear)


def _adapt(layer: nn.Module, settings: LoRASettings) -> None:
    """Turn a layer into an adapted one; it stays the same object, with its hooks."""
    if is_adapted(layer):  # two names end alike
        return
    weight = layer.weight
    assert isinstance(weight, Tensor)
    layer.__class__ = LoRAConv2d if isinstance(layer, nn.Conv2d) else LoRALinear
    down, up = weight.new_empty(settings.rank, *weight.shape[1:]), weight.new_zeros(weight.shape[0], settings.rank)
    nn.init.kaiming_uniform_(down, a=math.sqrt(5))
    layer.lora_down, layer.lora_up = nn.Parameter(down), nn.Parameter(up)
    alpha = settings.rank if settings.alpha is None else settings.alpha
    # A buffer, so that weights can be merged without the config that they were trained with.
    layer.register_buffer(SCALE, torch.tensor(alpha / settings.rank, dtype=torch.float32, device=weight.device))
    layer.lora_dropout = settings.dropout  # type: ignore[assignment]


def _without_numbers(name: str) -> str:
    """What stands behind the last number of a name, other than at its end."""
    parts = name.split(".")
    last = max((i for i, part in enumerate(parts[:-1]) if part.isdigit()), default=-1)
    return ".".join(parts[last + 1 :])


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f" Nearest: {', '.join(near)}." if near else ""
