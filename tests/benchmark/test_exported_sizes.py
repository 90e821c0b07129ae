from pathlib import Path

import pytest
import torch

from mmseg_m2f.benchmark import exported_sizes
from mmseg_m2f.benchmark.exported_sizes import measure_sizes
from mmseg_m2f.engine.trained_model import load_trained
from mmseg_m2f.export.export_options import ExportOptions
from tests.runtime.small_files import RECORD, write_file
from tests.tiny_segmentation import tiny_config


def test_measure_sizes__any_size_and_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of any size is the images themselves, so that it differs from the model; files of one size report."""
    asked = []

    def export(trained: object, cfg: object, path: Path, options: ExportOptions | None = None) -> dict:
        asked.append(None if options is None else options.size)
        write_file(path, RECORD)
        return dict(
            max_errors=dict(features_0=1.0, scores=2e-6),
            attention_bits_differing=3,
            label_disagreement=0.25,
            latency_ms=dict(eager=2.0, exported=1.0),
        )

    monkeypatch.setattr(exported_sizes, "export_model", export)
    cfg = tiny_config(tmp_path, num_classes=2)
    trained = load_trained(cfg)
    trained.model.encode_decode = lambda images, metas: images + 0.5 * (torch.arange(3) == 1)[:, None, None]
    whole, one = list(measure_sizes(trained, cfg, [(32, 48)]))
    assert asked == [None, (32, 48)]
    assert (whole.kind, whole.size, whole.bits) == ("any size", (32, 48), None)
    assert whole.error == pytest.approx(0.5)
    assert whole.labels > 0
    assert one == ("one size", (32, 48), 2e-6, 3, 0.25, dict(eager=2.0, exported=1.0))
