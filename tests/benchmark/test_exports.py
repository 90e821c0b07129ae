import json
from pathlib import Path

import jaxtyping
import pytest
import torch

from mmseg_m2f.benchmark import exports
from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.command_line.benchmark import main
from mmseg_m2f.config.load import load_config
from mmseg_m2f.engine.trained_model import load_trained
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.export.export_options import ExportOptions
from mmseg_m2f.export.model_export import export_model
from mmseg_m2f.runtime import ExportedModel

RECORDS = {
    "one": {"ONNX": dict(error=2e-6, labels=0.0, bits=0), "OpenVINO": dict(refused="Positions differ.")},
    "two": {"ONNX": dict(error=3e-3, labels=0.0, bits=4)},
}


def test_export_table__results_and_reasons():
    assert exports.export_table(RECORDS).splitlines() == [
        "| | ONNX | OpenVINO |",
        "|---|---|---|",
        "| `one` | 2.0e-06 | refused (1) |",
        "| `two` | 3.0e-03, 4 bits | not run |",
        "",
        "1. one, OpenVINO: Positions differ.",
    ]


def test_exports__go_into_the_page_and_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, records = tmp_path / "page.md", tmp_path / "records.json"
    page.write_text("before\n<!-- exports -->\nold\n<!-- /exports -->\nafter\n")
    seen = []

    def measure(config: str, kinds: list[str], options: object) -> dict:
        seen.extend((config, kind) for kind in kinds)
        return {kind: RECORDS["one"][kind] for kind in kinds}

    monkeypatch.setattr(exports, "measure_exports", measure)
    arguments = ["exports", "one", "--formats", "ONNX", "OpenVINO", "--records", str(records), "--page", str(page)]
    for _ in range(2):
        main(arguments, call=Call.of_tool("benchmark"))
    assert seen == [("one", "ONNX"), ("one", "OpenVINO")]
    assert json.loads(records.read_text()) == {"one": RECORDS["one"]}
    text = page.read_text()
    assert text.startswith("before\n<!-- exports -->\n| | ONNX | OpenVINO |")
    assert text.endswith("<!-- /exports -->\nafter\n")
    assert "old" not in text
    page.write_text("no marks")
    with pytest.raises(SystemExit):
        main(arguments, call=Call.of_tool("benchmark"))


def test_measure_exports__one_export_gives_onnx_and_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """Differences of the ONNX file are not OpenVINO's; maps on the way are left out; refusals stay OpenVINO's."""
    exported = []
    comparisons = [
        dict(name="program, 1", errors=dict(scores=1e-6, features_0=1.0), label_disagreement=0.0, bits=(8, 1)),
        dict(name="file, 1", errors=dict(scores=2e-6), label_disagreement=0.25, bits=(0, 0)),
        dict(name="OpenVINO, 1", errors=dict(scores=3e-6), label_disagreement=0.5, bits=(0, 0)),
    ]
    refused: list[str] = []

    def export(trained: object, cfg: object, path: Path, options: object) -> dict:
        exported.append(path.name)
        if path.name in refused:
            raise InvalidValueError("no")
        return dict(comparisons=comparisons if path.suffix == ".xml" else comparisons[:2])

    monkeypatch.setattr(exports, "export_model", export)
    monkeypatch.setattr(exports, "load_trained", lambda cfg: None)
    leaf = "deeplabv3plus_r18_shapes_demo"
    of_onnx, of_openvino = dict(error=2e-6, labels=0.25, bits=1), dict(error=3e-6, labels=0.5, bits=0)
    found = exports.measure_exports(leaf, ["ONNX", "OpenVINO", "torch.export"])
    assert found == {"ONNX": of_onnx, "OpenVINO": of_openvino, "torch.export": of_onnx}
    assert exported == ["model.xml", "model.pt2"]
    refused.append("model.xml")
    found = exports.measure_exports(leaf, ["ONNX", "OpenVINO"])
    assert found == {"OpenVINO": dict(refused="no"), "ONNX": of_onnx}


#: Swin as small as its windows allow.
SMALL_SWIN = {
    "model.backbone.embed_dims": 24,
    "model.backbone.depths": [1, 2, 1, 1],
    "model.backbone.num_heads": [1, 2, 4, 8],
}


@pytest.mark.filterwarnings("ignore:.*comparison of labels")  # random weights may give one class alone
@pytest.mark.parametrize("name", list(exports.FAMILIES))
def test_exports__each_family_is_a_file_of_one_size(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of what the table shows for any size: `export_model` refuses what differs."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # its checks would become conditions
    options = exports.FAMILIES[name] | (SMALL_SWIN if "swin" in name else {})
    if "model.decode_head.query_decoder.num_layers" in options:
        options["model.decode_head.query_decoder.num_layers"] = 1
    cfg = load_config(name, options)
    torch.manual_seed(0)
    export = ExportOptions(size=(64, 96))
    report = export_model(load_trained(cfg), cfg, tmp_path / "model.onnx", export)
    assert report["label_disagreement"] <= 1e-4
    assert report["attention_bits_differing"] or max(report["max_errors"].values()) <= 1e-4
    assert ExportedModel(tmp_path / "model.onnx").record.size == (64, 96)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", list(exports.FAMILIES))
def test_exports__families_are_files_of_standard_operators(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any batch and size; `export_model` refuses what differs by more than the limits of the gate."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # its checks would become conditions
    result = exports.measure_export(name, "ONNX", exports.FAMILIES[name])
    assert result["labels"] <= 1e-4
    assert result["bits"] or result["error"] <= 1e-4


@pytest.mark.slow
@pytest.mark.exhaustive
def test_exports__openvino_refuses_resized_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's antialiased cubic is another one: EoMT differs away from the size of its positions."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    result = exports.measure_export("eomt_tiny_shapes_debug", "OpenVINO")
    assert "OpenVINO, " in result["refused"]
    assert "differs by" in result["refused"]
