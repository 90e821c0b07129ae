"""One rule for learning rate and weight decay of every parameter, whatever the backbone."""

import re
from collections.abc import Mapping
from inspect import signature
from typing import Any

from mmengine.config import ConfigDict
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import OPTIM_WRAPPER_CONSTRUCTORS

_UNDECAYED_TYPES = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.Embedding)
#: Numbered blocks of a plain vision transformer, at most one module below the backbone.
_BLOCK = re.compile(r"backbone(?:\.\w+)?\.blocks\.(\d+)(?:\..*)?")
#: Position tables, tokens and layer scales of mmseg's, mmdet's and timm's classes that have no `no_weight_decay`.
_UNDECAYED_OF_OTHERS: dict[str, tuple[str, ...]] = {
    "AbsolutePositionEmbedding": ("pos_embed",),
    "BEiT": ("cls_token", "pos_embed"),
    "BEiTAttention": ("relative_position_bias_table",),
    "MAE": ("cls_token", "pos_embed"),
    "MSCABlock": ("layer_scale_1", "layer_scale_2"),
    "SwinTransformer": ("absolute_pos_embed",),
    "VisionTransformer": ("cls_token", "pos_embed", "reg_token"),
    "WindowAttention": ("relative_position_bias_table",),
    "WindowMSA": ("relative_position_bias_table",),
}


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ParameterRule:
    """Builds the optimizer: lower learning rate for the backbone, no weight decay for norms, embeddings and positions.

    Norm layers (weights and biases) and embeddings are recognised by type. A module names further parameters without
    decay in `no_weight_decay()`, as timm's models do: names relative to itself. Parameters with the same learning rate
    and decay share one group. This is the rule of the published Mask2Former recipes (arXiv 2112.01527, section 4.1).

    On a GPU, torch's optimizers step in one fused kernel, which needs no temporary copies of the weights, unless
    `optimizer` sets `fused` or `foreach`.

    Args:
        optim_wrapper_cfg: `optimizer` with `lr` and `weight_decay`, and the wrapper's own arguments.
        paramwise_cfg: `backbone_lr_mult` (default 0.1) multiplies the learning rate of `backbone.*`. `layer_decay`
            multiplies that of block b of a plain vision transformer with n blocks by `layer_decay ** (n - 1 - b)`, what
            comes before the blocks learns like the first; the backbone's groups are then its own, marked
            `in_backbone`. `full_lr` lists beginnings of parts of names (between dots): such parameters of the backbone
            are new and learn as fast as the head; by default those of adapters and of LoRA. `decay_all=True` decays
            norms, embeddings and position tables too.
    """

    def __init__(self, optim_wrapper_cfg: ConfigDict | dict, paramwise_cfg: ConfigDict | dict | None = None) -> None:
        self.wrapper_cfg = dict(optim_wrapper_cfg)
        self.optimizer_cfg = dict(self.wrapper_cfg.pop("optimizer"))
        rule = dict(paramwise_cfg or {})
        self.backbone_lr_mult = rule.pop("backbone_lr_mult", 0.1)
        self.layer_decay: float | None = rule.pop("layer_decay", None)
        self.full_lr: tuple[str, ...] = tuple(rule.pop("full_lr", ("adapter", "lora_")))
        self.decay_all = rule.pop("decay_all", False)
        if rule:
            raise InvalidValueError(
                "optim_wrapper.paramwise_cfg: ParameterRule knows backbone_lr_mult, layer_decay, full_lr and "
                f"decay_all, got {sorted(rule)} as well. "
                "For custom_keys and the like use constructor='mmengine.DefaultOptimWrapperConstructor'."
            )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        model = getattr(model, "module", model)
        optimizer_cfg = dict(self.optimizer_cfg, params=self.parameter_groups(model))
        if _can_fuse(optimizer_cfg):
            optimizer_cfg["fused"] = True
        optimizer = OPTIMIZERS.build(optimizer_cfg)
        wrapper: dict[str, Any] = dict(self.wrapper_cfg, optimizer=optimizer)
        wrapper.setdefault("type", "mmengine.OptimWrapper")
        return OPTIM_WRAPPERS.build(wrapper)

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """At most four groups, with `layer_decay` at most two more for each block; `params`, `lr`, `weight_decay`.

        Raises:
            ValueError: there is a `layer_decay`, but the backbone has no numbered blocks.
        """
        lr, decay = self.optimizer_cfg["lr"], self.optimizer_cfg.get("weight_decay", 0.0)
        factors = {} if self.layer_decay is None else _layer_factors(model, self.layer_decay)
        undecayed = set() if self.decay_all else _undecayed(model)
        groups: dict[tuple[float, float, bool], dict[str, Any]] = {}
        seen: set[int] = set()
        for module_name, module in model.named_modules():
            in_backbone = module_name.split(".")[0] == "backbone"
            module_lr = lr * self.backbone_lr_mult * factors.get(module_name, 1.0) if in_backbone else lr
            for name, parameter in module.named_parameters(recurse=False):
                if not parameter.requires_grad or id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                is_new = in_backbone and self._is_new(f"{module_name}.{name}")
                mark = dict(in_backbone=True) if module_name in factors and not is_new else {}
                key = (lr if is_new else module_lr, 0.0 if id(parameter) in undecayed else decay, bool(mark))
                group = groups.setdefault(key, dict(params=[], lr=key[0], weight_decay=key[1], **mark))
                group["params"].append(parameter)
        return list(groups.values())

    def _is_new(self, name: str) -> bool:
        return any(part.startswith(self.full_lr) for part in name.split("."))


def _can_fuse(optimizer_cfg: Mapping[str, Any]) -> bool:
    """Whether the optimizer can step in a fused kernel and its config leaves that open."""
    kind = optimizer_cfg["type"]
    kind = OPTIMIZERS.get(kind) if isinstance(kind, str) else kind
    if kind is None or "fused" not in signature(kind).parameters or {"fused", "foreach"} & optimizer_cfg.keys():
        return False
    parameters = [parameter for group in optimizer_cfg["params"] for parameter in group["params"]]
    return bool(parameters) and all(parameter.is_cuda for parameter in parameters)


def _undecayed(model: nn.Module) -> set[int]:
    """Ids of the parameters without weight decay."""
    found: set[int] = set()
    for module in model.modules():
        if isinstance(module, _UNDECAYED_TYPES):
            found |= {id(parameter) for parameter in module.parameters(recurse=False)}
        names = {name for cls in type(module).__mro__ for name in _UNDECAYED_OF_OTHERS.get(cls.__name__, ())}
        if callable(named := getattr(module, "no_weight_decay", None)):
            names |= set(named())
        if names:
            found |= {id(parameter) for name, parameter in module.named_parameters() if name in names}
    return found


def _layer_factors(model: nn.Module, decay: float) -> dict[str, float]:
    """What the learning rate of each module of the backbone is multiplied by."""
    names = [name for name, _ in model.named_modules() if name.split(".")[0] == "backbone"]
    blocks = {name: int(match[1]) for name in names if (match := _BLOCK.fullmatch(name))}
    if not blocks:
        raise InvalidValueError(
            "optim_wrapper.paramwise_cfg.layer_decay: expected a plain vision transformer with blocks.0, blocks.1 ... "
            "as model.backbone, got one without. Take layer_decay out, or use TimmTokenStream."
        )
    last = max(blocks.values())
    first = names.index(next(iter(blocks)))
    # In timm's order: tokens, positions and patch embedding, the blocks, the final norm.
    nearest = [blocks.get(name, 0 if position < first else last) for position, name in enumerate(names)]
    return {name: decay ** (last - block) for name, block in zip(names, nearest, strict=True)}
