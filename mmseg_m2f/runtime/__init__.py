"""Exported files as functions of tensors: what is written in them, and the runtimes that execute them."""

from mmseg_m2f.runtime.export_record import ExportRecord
from mmseg_m2f.runtime.exported_model import SUFFIXES, ExportedModel, is_exported

__all__ = ["SUFFIXES", "ExportRecord", "ExportedModel", "is_exported"]
