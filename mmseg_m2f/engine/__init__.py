"""Hooks, the optimizer's parameter rule, checks before a run, and launching it."""

from mmseg_m2f import files
from mmseg_m2f.engine import hooks
from mmseg_m2f.engine.bfloat16 import Bfloat16OptimWrapper
from mmseg_m2f.engine.parameter_rule import ParameterRule

__all__ = ["Bfloat16OptimWrapper", "ParameterRule", "files", "hooks"]
