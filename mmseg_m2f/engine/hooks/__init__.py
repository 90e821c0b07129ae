"""Hooks: checks before training, the report of a run, pictures and files of predictions."""

from mmseg_m2f.engine.hooks.draw_predictions import DrawPredictions, SavePredictions
from mmseg_m2f.engine.hooks.preflight import Preflight
from mmseg_m2f.engine.hooks.report import Report

__all__ = ["DrawPredictions", "Preflight", "Report", "SavePredictions"]
