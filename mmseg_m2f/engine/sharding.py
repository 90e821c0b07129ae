"""Fully sharded data parallel training (FSDP, arXiv 2304.11277) by torch's `fully_shard`.

Each process keeps a part of every parameter, gradient and optimizer state. A model is built, filled and resumed whole,
then sharded; state dicts are gathered whole. So a checkpoint is the same file with and without sharding, and loads
anywhere.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MIN_BLOCK = 1_000_000  # parameters of a block of the backbone that is gathered and freed on its own


def shard(model: nn.Module, optimizer: Optimizer | None, *, device: str, min_parameters: int = MIN_BLOCK) -> None:
    """Spread parameters and optimizer states over all processes of the default group; each has to call it.

    Blocks of the backbone are gathered one by one when they are used, everything else when a step begins.

    Args:
        model: The same on all processes. Its class changes to a subclass of itself and of `FSDPModule`.
        optimizer: Of the parameters of the whole model; its groups and states become those of the sharded ones.
        device: `cpu` or `cuda`, where parameters and buffers go.
        min_parameters: See `blocks`.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    names = {id(parameter): name for name, parameter in model.named_parameters()}
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    for block in (*blocks(model, min_parameters=min_parameters), model):
        fully_shard(block, mesh=mesh)
    model.to(device)  # parameters are there; the data preprocessor learns where it is
    model.register_state_dict_post_hook(_gather_weights)
    if optimizer is not None:
        _shard_states(optimizer, names, dict(model.named_parameters()))
        optimizer.register_state_dict_post_hook(_gather_states)


def blocks(model: nn.Module, *, min_parameters: int = MIN_BLOCK) -> list[nn.Module]:
    """The outermost members of lists and sequences in the backbone that have so many parameters; none without one."""
    backbone = getattr(model, "backbone", None)
    found: list[nn.Module] = []

    def walk(module: nn.Module) -> None:
        for child in module.children():
            is_list = isinstance(child, (nn.ModuleList, nn.Sequential))
            large = sum(parameter.numel() for parameter in child.parameters()) >= min_parameters
            if large and not is_list and isinstance(module, (nn.ModuleList, nn.Sequential)):
                found.append(child)
            else:
                walk(child)

    if isinstance(backbone, nn.Module):
        walk(backbone)
    return found


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` was called for a model; its parameters may be gathered for the time being."""
    return hasattr(model, "unshard")


def local_part(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that this process holds, which may be empty; another tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered, which all processes have to ask for; another tensor as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def with_part(like: Tensor, part: Tensor) -> Tensor:
    """A tensor sharded as `like` is, of which this process holds `part`; `part` where `like` is not sharded."""
    if not hasattr(like, "to_local"):
        return part
    from torch.distributed.tensor import DTensor

    assert isinstance(like, DTensor)
    return DTensor.from_local(part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())


def gather_parameters(model: nn.Module, *, stay: bool) -> None:
    """Gather all parameters now, which all processes have to ask for, or free what was gathered.

    Args:
        stay: Gather, and do not free after a forward pass. Processes may then differ in how often they run the model:
            in evaluation, images differ in size and number of windows. False: free, and gather when used.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(not stay and module is not model, recurse=False)
            if stay:
                module.unshard()
            else:
                module.reshard()


def _shard_states(optimizer: Optimizer, names: Mapping[int, str], sharded: Mapping[str, nn.Parameter]) -> None:
    """Let an optimizer update sharded parameters, with the states that the whole ones had."""
    from torch.distributed.tensor import distribute_tensor

    states = {names[id(parameter)]: state for parameter, state in optimizer.state.items()}
    for group in optimizer.param_groups:
        group["params"] = [sharded[names[id(parameter)]] for parameter in group["params"]]
    optimizer.state.clear()
    for name, state in states.items():
        like: Any = sharded[name]
        optimizer.state[like] = {
            key: distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
            if isinstance(value, Tensor) and value.shape == like.shape and value.dim()
            else value
            for key, value in state.items()
        }


def _gather_weights(module: nn.Module, state: dict, prefix: str, metadata: object) -> None:
    for name, value in state.items():
        state[name] = whole(value) if isinstance(value, Tensor) else value


def _gather_states(optimizer: Optimizer, state: dict) -> dict:
    gathered = {
        index: {key: whole(value) if isinstance(value, Tensor) else value for key, value in values.items()}
        for index, values in state["state"].items()
    }
    return dict(state, state=gathered)
