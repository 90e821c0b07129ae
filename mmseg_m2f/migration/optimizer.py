"""The optimizer's settings of every parameter, under our parameters' names."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.migration.reading import Config, MigrationReport

Settings = dict[str, tuple[float, float]]  # learning rate and weight decay of each trained parameter


def migrate_optim_wrapper(wrapper: Config, model: nn.Module, *, head: str, report: MigrationReport) -> Config:
    """An `optim_wrapper` that gives each parameter the learning rate and decay it has upstream.

    Written with `ParameterRule` where that gives the same, else with upstream's constructor and renamed keys.

    Args:
        wrapper: upstream's, its types with scope.
        model: ours; nothing in it changes.
        head: upstream's name of the head, below which its parameters lie.
        report: gets a line where the rule or the keys are written differently.

    Raises:
        ValueError: neither gives the same; the message names a parameter.
    """
    expected = _settings(_UpstreamNames(model, head), wrapper, of=model)
    renamed = wrapper
    rules = wrapper.get("paramwise_cfg") or {}
    keys = rules.get("custom_keys") if isinstance(rules, Mapping) else None
    if isinstance(keys, Mapping):
        moved = [name for name, _ in model.get_submodule("decode_head.query_decoder").named_children()]
        ours = {_our_key(key, head, moved): value for key, value in keys.items()}
        if set(ours) != set(keys):
            renamed = {**wrapper, "paramwise_cfg": {**rules, "custom_keys": ours}}
    backbone = (keys or {}).get("backbone") or {}
    by_rule = {
        **wrapper,
        "constructor": "mmseg_m2f.ParameterRule",
        "paramwise_cfg": dict(backbone_lr_mult=backbone.get("lr_mult", 1.0)),
    }
    for candidate in (by_rule, renamed):
        found = _settings(model, candidate, of=model)
        if found == expected:
            if candidate is not wrapper:
                how = "ParameterRule" if candidate is by_rule else "custom_keys under our parameters' names"
                report.changed.append(f"optim_wrapper: {how}; every learning rate and weight decay is as before")
            return candidate
    name = next(name for name in expected if found.get(name) != expected[name])
    raise InvalidValueError(
        f"optim_wrapper.paramwise_cfg: {name} has learning rate and weight decay {expected[name]} upstream, but "
        f"{found.get(name)} here with the keys {sorted(keys or {})} adapted. Name parameters by more of their path "
        "in a copy of the source config, for example 'decode_head.query_embed' in place of 'query'."
    )


class _UpstreamNames(nn.Module):
    """The parts of our model where mmseg or mmdet have them: what is in the query decoder lies in the head itself."""

    def __init__(self, model: nn.Module, head: str) -> None:
        super().__init__()
        for name, part in model.named_children():
            if name != "decode_head":
                self.add_module(name, part)
        parts = dict(model.get_submodule("decode_head").named_children())
        parts.update(parts.pop("query_decoder").named_children())
        self.add_module(head, nn.ModuleDict(parts))


def _settings(model: nn.Module, wrapper: Config, *, of: nn.Module) -> Settings:
    rule: Config = {key: wrapper[key] for key in ("optimizer", "constructor", "paramwise_cfg") if key in wrapper}
    with _quiet():  # the plain wrapper, because others need a GPU
        optimizer = build_optim_wrapper(model, dict(type="mmengine.OptimWrapper", **rule)).optimizer
    groups = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    return {name: groups[id(p)] for name, p in of.named_parameters() if p.requires_grad and id(p) in groups}


def _our_key(key: str, head: str, in_query_decoder: Iterable[str]) -> str:
    """A piece of upstream's parameter names as a piece of ours."""
    key = key.replace(head, "decode_head")
    for part in in_query_decoder:
        key = key.replace(f"decode_head.{part}", f"decode_head.query_decoder.{part}")
    return key


@contextmanager
def _quiet() -> Iterator[None]:
    """Without mmengine's line of log for each parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
