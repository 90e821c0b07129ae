"""One small leaf per family as an ONNX file for any batch and size, within the limits of the gate."""

from pathlib import Path

import pytest
import torch

from mmseg_m2f.benchmark.exports import FAMILIES
from mmseg_m2f.config.load import load_config
from mmseg_m2f.engine.trained_model import load_trained
from mmseg_m2f.export.model_export import ExportOptions, export_model


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FAMILIES))
def test_family__is_one_file_of_standard_operators(name: str, tmp_path: Path) -> None:
    cfg = load_config(name, FAMILIES[name])
    trained = load_trained(cfg)
    report = export_model(trained, cfg, tmp_path / "model.onnx", ExportOptions())
    outputs = {key: error for key, error in report["max_errors"].items() if "features" not in key}
    assert outputs
    if report["attention_bits_differing"] == 0:
        assert max(outputs.values()) <= 1e-4
    assert report["label_disagreement"] <= 1e-4
    assert torch.tensor(list(report["max_errors"].values())).isfinite().all()
