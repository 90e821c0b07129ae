"""One rule for learning rate and weight decay of every parameter, whatever the backbone."""

from typing import Any

from mmengine.config import ConfigDict
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mmseg_m2f.registry import OPTIM_WRAPPER_CONSTRUCTORS

_UNDECAYED_TYPES = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.Embedding)
#: Tables and tokens that backbones keep as bare parameters.
_UNDECAYED_NAMES = (
    "relative_position_bias_table",
    "absolute_pos_embed",
    "pos_embed",
    "cls_token",
    "reg_token",
    "mask_token",
)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ParameterRule:
    """Builds the optimizer: the backbone learns slower, and what is no weight matrix is not decayed.

    Norm layers (weights and biases), embeddings and position tables get no weight decay; they are recognised
    by type, position tables by name. Parameters with the same learning rate and decay share one group.
    This is the rule of the published Mask2Former recipes (arXiv 2112.01527, section 4.1).

    Args:
        optim_wrapper_cfg: `optimizer` with `lr` and `weight_decay`, and the wrapper's own arguments.
        paramwise_cfg: `backbone_lr_mult` (default 0.1) multiplies the learning rate of `backbone.*`.
    """

    def __init__(self, optim_wrapper_cfg: ConfigDict | dict, paramwise_cfg: ConfigDict | dict | None = None) -> None:
        self.wrapper_cfg = dict(optim_wrapper_cfg)
        self.optimizer_cfg = dict(self.wrapper_cfg.pop("optimizer"))
        rule = dict(paramwise_cfg or {})
        self.backbone_lr_mult = rule.pop("backbone_lr_mult", 0.1)
        if rule:
            raise ValueError(
                f"optim_wrapper.paramwise_cfg: ParameterRule knows backbone_lr_mult, got {sorted(rule)} as well. "
                "For custom_keys and the like use constructor='mmengine.DefaultOptimWrapperConstructor'."
            )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        model = getattr(model, "module", model)
        optimizer = OPTIMIZERS.build(dict(self.optimizer_cfg, params=self.parameter_groups(model)))
        wrapper: dict[str, Any] = dict(self.wrapper_cfg, optimizer=optimizer)
        wrapper.setdefault("type", "mmengine.OptimWrapper")
        return OPTIM_WRAPPERS.build(wrapper)

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """At most four groups, each with `params`, `lr` and `weight_decay`."""
        lr, decay = self.optimizer_cfg["lr"], self.optimizer_cfg.get("weight_decay", 0.0)
        groups: dict[tuple[float, float], dict[str, Any]] = {}
        seen: set[int] = set()
        for module_name, module in model.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                if not parameter.requires_grad or id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                undecayed = isinstance(module, _UNDECAYED_TYPES) or name in _UNDECAYED_NAMES
                in_backbone = module_name.split(".")[0] == "backbone"
                key = (lr * self.backbone_lr_mult if in_backbone else lr, 0.0 if undecayed else decay)
                group = groups.setdefault(key, dict(params=[], lr=key[0], weight_decay=key[1]))
                group["params"].append(parameter)
        return list(groups.values())
