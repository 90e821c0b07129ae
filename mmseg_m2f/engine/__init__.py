"""Hooks, the optimizer's parameter rule, checks before a run, and launching it."""

from mmseg_m2f.engine import hooks, storage
from mmseg_m2f.engine.parameter_rule import ParameterRule

__all__ = ["ParameterRule", "hooks", "storage"]
