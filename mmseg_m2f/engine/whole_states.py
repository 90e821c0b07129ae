"""An optimizer's states between whole parameters and the flat parts that processes update with ZeRO."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mmseg_m2f.errors import InvalidValueError


class WholeStates:
    """The groups of an optimizer as they are without DeepSpeed, and its states between one process and many.

    In DeepSpeed each group is one flat tensor: its trainable parameters one after another, filled up to equal parts
    for all processes. The optimizer of a process updates its part.

    Args:
        optimizer: Before DeepSpeed gets it; groups without trainable parameters are taken out of it, and its states.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.groups = [dict(group) for group in optimizer.param_groups]
        self._states: dict[Tensor, dict[str, Any]] = dict(optimizer.state)
        self.spread_groups = [group for group in self.groups if trainable(group["params"])]
        optimizer.state.clear()
        optimizer.param_groups[:] = [dict(group, params=trainable(group["params"])) for group in self.spread_groups]

    def give_to(self, optimizer: Optimizer) -> None:
        """Give an optimizer of flat parts its parts of the states.

        Raises:
            ValueError: Numbers of steps differ between the parameters of a group.
        """
        for group, (part,) in zip(self.spread_groups, _parts(optimizer), strict=True):
            parameters = trainable(group["params"])
            states = [self._states.get(parameter, {}) for parameter in parameters]
            for key in dict.fromkeys(key for state in states for key in state):
                values = [state.get(key) for state in states]
                if key != "step" and any(isinstance(value, Tensor) for value in values):
                    pieces = [
                        torch.zeros(p.numel(), device=part.device) if v is None else v.to(part.device).flatten()
                        for v, p in zip(values, parameters, strict=True)
                    ]
                    optimizer.state[part][key] = _own_part(torch.cat(pieces), part)
                else:
                    optimizer.state[part][key] = self._shared(key, values)
        self._states = {}

    def gather(self, optimizer: Optimizer) -> dict[str, Any]:
        """The state dict of the optimizer of the whole model, on the CPU; all processes have to ask for it."""
        numbers: dict[int, int] = {}
        for group in self.groups:
            for parameter in group["params"]:
                numbers.setdefault(id(parameter), len(numbers))
        state: dict[int, dict[str, Any]] = {}
        for group, (part,) in zip(self.spread_groups, _parts(optimizer), strict=True):
            parameters = trainable(group["params"])
            for key, value in optimizer.state.get(part, {}).items():
                if isinstance(value, Tensor) and value.shape == part.shape:
                    values: Iterable[Any] = _pieces(_gathered(value), parameters)
                else:
                    values = [value.clone() if isinstance(value, Tensor) else value for _ in parameters]
                for parameter, piece in zip(parameters, values, strict=True):
                    state.setdefault(numbers[id(parameter)], {})[key] = piece
        groups = [dict(group, params=[numbers[id(p)] for p in group["params"]]) for group in self.groups]
        return dict(state=dict(sorted(state.items())), param_groups=groups)

    def _shared(self, key: str, values: Sequence[Any]) -> object:
        found = [value for value in values if value is not None]
        if len(found) < len(values) or any(value != found[0] for value in found):
            counts = sorted({0 if value is None else float(value) for value in values})
            raise InvalidValueError(
                f"DeepSpeedStrategy: the optimizer state {key!r} differs between parameters of one group "
                f"({', '.join(f'{count:g}' for count in counts[:5])}); expected the same for all, since DeepSpeed "
                "updates a group as one tensor. Resume without DeepSpeed, or take the weights alone (load_from)."
            )
        return found[0].clone() if isinstance(found[0], Tensor) else found[0]


def trainable(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Those that DeepSpeed updates."""
    return [parameter for parameter in parameters if parameter.requires_grad and parameter.numel()]


def _parts(optimizer: Optimizer) -> list[list[Tensor]]:
    return [group["params"] for group in optimizer.param_groups]


def _own_part(whole: Tensor, part: Tensor) -> Tensor:
    """The part of a flat tensor that this process updates, filled up with zeros, like `part`."""
    start = torch.distributed.get_rank() * part.numel()
    own = torch.zeros_like(part.detach())
    piece = whole[start : start + part.numel()]
    own[: len(piece)] = piece
    return own


def _gathered(part: Tensor) -> Tensor:
    """The flat tensor of which all processes have equal parts, on the CPU."""
    parts = [torch.empty_like(part) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, part.detach().contiguous())
    return torch.cat([one.cpu() for one in parts])


def _pieces(flat: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    lengths = [parameter.numel() for parameter in parameters]
    pieces = flat[: sum(lengths)].split(lengths)
    return [piece.view(p.shape).clone() for piece, p in zip(pieces, parameters, strict=True)]
