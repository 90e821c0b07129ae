"""Hooks: losses logged late, checks before training, schedules, the report of a run, what is written of predictions."""

from mmseg_m2f.engine.hooks.deferred_log import DeferredRuntimeInfo, keep_norm_on_device
from mmseg_m2f.engine.hooks.draw_predictions import DrawPredictions, SavePredictions
from mmseg_m2f.engine.hooks.exact_resume import ExactResume
from mmseg_m2f.engine.hooks.fine_tune import FineTune
from mmseg_m2f.engine.hooks.gather_for_evaluation import GatherForEvaluation
from mmseg_m2f.engine.hooks.mask_annealing import MaskAnnealing
from mmseg_m2f.engine.hooks.non_finite_guard import NonFiniteGuard
from mmseg_m2f.engine.hooks.preflight import Preflight
from mmseg_m2f.engine.hooks.report import Report
from mmseg_m2f.engine.hooks.safe_checkpoint import SafeCheckpointHook
from mmseg_m2f.engine.hooks.trainable_only import TrainableOnly
from mmseg_m2f.engine.hooks.two_stage_warmup import TwoStageWarmup

__all__ = [
    "DeferredRuntimeInfo",
    "DrawPredictions",
    "ExactResume",
    "FineTune",
    "GatherForEvaluation",
    "MaskAnnealing",
    "NonFiniteGuard",
    "Preflight",
    "Report",
    "SafeCheckpointHook",
    "SavePredictions",
    "TrainableOnly",
    "TwoStageWarmup",
    "keep_norm_on_device",
]
