"""Weights without the frozen parameters, which a model that is built anew has already."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError

#: Stands for the frozen parameters in weights without them: mean and root mean square of each, in the order of names.
STATISTICS = "frozen_statistics"
_TOLERANCE = 1e-4  # relative to the root mean square: above rounding of resampled weights, below what training changes


def without_frozen(model: nn.Module, weights: Mapping[str, Tensor], *, prefix: str = "") -> dict[str, Tensor]:
    """Weights of a model without its frozen parameters, and statistics by which `fill_frozen` knows them again.

    Args:
        prefix: what the names of the weights begin with.

    Raises:
        ValueError: no parameter of the model is frozen.
    """
    frozen = _frozen(model)
    if not frozen:
        raise InvalidValueError(
            "Weights without frozen parameters: expected a model with some, got one that trains all of them. Set "
            "model.backbone.frozen=True, model.backbone.lora=dict(rank=16) or model.trainable, or take the hook "
            "TrainableOnly out."
        )
    kept = {name: value for name, value in weights.items() if name.removeprefix(prefix) not in frozen}
    return {**kept, f"{prefix}{STATISTICS}": _statistics(frozen)}


def fill_frozen(model: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Complete weights that lack the frozen parameters with the model's own; runs before weights are loaded.

    Raises:
        ValueError: the model's frozen parameters are others than those that the weights were trained with.
    """
    stored = state_dict.pop(f"{prefix}{STATISTICS}", None)
    if stored is None:
        return
    names = {name for name, _ in model.named_parameters()}
    own = {name: p for name, p in model.named_parameters() if f"{prefix}{name}" not in state_dict}
    wrong = _misfit(own, stored)
    if wrong is not None:
        raise InvalidValueError(
            f"The checkpoint holds trained weights alone, for {len(stored)} frozen ones of {len(names)} or more; "
            f"expected a model that has them, got one with {wrong}. Keep the weights that the training started from: "
            "model.backbone.pretrained=True, checkpoint_path or init_cfg, as in the run's config."
        )
    state_dict.update({f"{prefix}{name}": p.detach() for name, p in own.items()})


def lacks_frozen(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are weights without frozen parameters."""
    return any(name.rpartition(".")[2] == STATISTICS for name in weights)


def _frozen(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if not parameter.requires_grad}


@torch.no_grad()
def _statistics(parameters: Mapping[str, Tensor]) -> Float[Tensor, "N 2"]:
    rows = []
    for _, parameter in sorted(parameters.items()):
        values = parameter.detach().flatten().double()
        rows.append(torch.stack([values.mean(), values.square().mean().sqrt()]).cpu())
    return torch.stack(rows) if rows else torch.zeros(0, 2, dtype=torch.float64)


def _misfit(own: Mapping[str, Tensor], stored: Float[Tensor, "N 2"]) -> str | None:
    """What of the model's parameters differs from the statistics; None where nothing does."""
    if len(own) != len(stored):
        return f"{len(own)} parameters that the checkpoint lacks"
    differ = (_statistics(own) - stored.cpu()).abs() > _TOLERANCE * stored[:, 1:].cpu() + 1e-12
    names = [name for name, row in zip(sorted(own), differ.any(1).tolist(), strict=True) if row]
    return f"other values in {len(names)} of them ({', '.join(names[:2])} ...)" if names else None
