"""Which methods export to which formats: one small leaf per method, through the checks of `tools/export.py`."""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn

from mmseg_m2f.config.load import load_config
from mmseg_m2f.engine.trained_model import find_trained, load_trained
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.export.export_gate import Comparison, compare, smooth_images
from mmseg_m2f.export.export_options import ExportOptions
from mmseg_m2f.export.latency import latencies
from mmseg_m2f.export.model_export import export_model
from mmseg_m2f.export.wrappers import Logits
from mmseg_m2f.files import replace_file, save_json
from mmseg_m2f.json_files import read_json
from mmseg_m2f.runtime import ExportedModel

#: A small leaf of each method, and options that make it smaller still.
FAMILIES: dict[str, dict[str, Any]] = {
    "mask2former_r18_shapes_debug": {
        "model.decode_head.query_decoder.num_layers": 3,
        "model.decode_head.pixel_decoder.num_layers": 1,
    },
    "mask2former_swin_t_ade20k-512_160k": {
        "pretrained": False,
        "model.decode_head.query_decoder.num_layers": 3,
        "model.decode_head.pixel_decoder.num_layers": 1,
    },
    "maskformer_r18_shapes_debug": {},
    "detr-tiny_r18_shapes_debug": {},
    "segvit_tiny_shapes_debug": {},
    "segvit-shrunk_tiny_shapes_demo": {},
    "eomt_tiny_shapes_debug": {},
    "pmt_tiny_shapes_demo": {},
    "mask-dino_r18_shapes-instance_demo": {},
    "ecenet_r18_shapes_debug": {},
    "cac-upernet_r18_shapes_debug": {},
    "segnext_mscan_tiny_shapes_debug": {},
    "semantic-fpn_coc_tiny_shapes_debug": {},
    "segformer_r18_shapes_demo": {},
    "deeplabv3plus_r18_shapes_demo": {},
}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "ONNX": ("model.onnx", {}),
    "ONNX by gathers": ("gather.onnx", dict(lowering="gather")),
    "ONNX full": ("full.onnx", dict(output="full")),
    "OpenVINO": ("model.xml", {}),
    "torch.export": ("model.pt2", {}),
}
#: Format -> largest difference, labels and bits, or why it was refused.
_Row: TypeAlias = dict[str, dict[str, Any]]
_MARKS = ("<!-- exports -->", "<!-- /exports -->")


def add_exports(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type to itself)
    """Add the command `exports`."""
    parser = commands.add_parser("exports", help="which methods export to which formats", description=__doc__)
    parser.add_argument("configs", nargs="*", default=list(FAMILIES), help="default: one small leaf per method")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument(
        "--records", default="work_dirs/exports.json", help="results by config and format, kept and added to"
    )
    parser.add_argument("--page", help="a page with the marks <!-- exports -->, between which the table goes")
    parser.set_defaults(run=_run)


def add_exported(commands: Any) -> None:  # noqa: ANN401
    """Add the command `exported`."""
    parser = commands.add_parser("exported", help="an exported file beside the model that it was made from")
    parser.add_argument("file", help="a file of tools/export.py with --output logits")
    parser.add_argument("checkpoint", help="what it was exported from; its config is inside the file")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--no-compiled", action="store_true", help="do not measure torch.compile")
    parser.set_defaults(run=_run_exported)


class FileFigures(NamedTuple):
    """A file beside its model: milliseconds of each, and how their results differ."""

    milliseconds: dict[str, float]
    comparison: Comparison


def measure_file(
    file: str | Path, checkpoint: str | Path, *, size: tuple[int, int], batch: int = 1, compiled: bool = True
) -> FileFigures:
    """Time a model, the compiled model and its file with the same random images, and compare their results.

    Raises:
        ValueError: The file holds full results, whose images are not the model's.
    """
    cfg, _ = find_trained(file)
    model = load_trained(cfg, checkpoint).model
    return measure_file_of(model, file, size=size, batch=batch, compiled=compiled)


def measure_file_of(
    model: nn.Module, file: str | Path, *, size: tuple[int, int], batch: int = 1, compiled: bool = True
) -> FileFigures:
    """The same for a model in evaluation mode."""
    exported = ExportedModel(file, threads=torch.get_num_threads())
    if exported.record.output != "logits":
        raise InvalidValueError(
            f"{file}: expected a file of logits, got one of full results. Export with --output logits."
        )
    wrapper = Logits(model)
    inputs = dict(images=smooth_images(batch, *size, channels=exported.record.input_channels))
    if exported.record.reads_valid:
        inputs["valid"] = torch.ones(batch, *size, dtype=torch.bool)
    with torch.no_grad():
        wanted = wrapper(*inputs.values())
    found = exported(**{name: value.numpy() for name, value in inputs.items()})
    comparison = compare(str(file), wanted, {name: torch.from_numpy(value) for name, value in found.items()})
    return FileFigures(latencies(wrapper, exported, inputs, compiled=compiled), comparison)


def measure_export(config: str, kind: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Export a leaf with random weights and give the largest difference of its results, or why it was refused."""
    return _measure(config, kind, options)[kind]


def measure_exports(config: str, kinds: Sequence[str], options: Mapping[str, Any] | None = None) -> _Row:
    """The same for several formats; OpenVINO's file is made from the ONNX file, so that one export measures both."""
    found: _Row = {}
    if {"ONNX", "OpenVINO"} <= set(kinds):
        found = _measure(config, "OpenVINO", options)
    return found | {kind: measure_export(config, kind, options) for kind in kinds if kind not in found}


def _measure(config: str, kind: str, options: Mapping[str, Any] | None) -> _Row:
    cfg = load_config(config, dict(options or {}))
    torch.manual_seed(0)
    trained = load_trained(cfg)
    name, arguments = FORMATS[kind]
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = export_model(trained, cfg, Path(folder) / name, ExportOptions(**arguments))
        except InvalidValueError as error:
            return {kind: dict(refused=str(error))}
    by_openvino = [each for each in report["comparisons"] if each["name"].startswith("OpenVINO")]
    others = [each for each in report["comparisons"] if each not in by_openvino]
    if by_openvino:
        return {"ONNX": _worst(others), "OpenVINO": _worst(by_openvino)}
    return {kind: _worst(others)}


def _worst(comparisons: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    errors = [error for each in comparisons for name, error in each["errors"].items() if "features" not in name]
    return dict(
        error=max(errors, default=0.0),
        labels=max(each["label_disagreement"] for each in comparisons),
        bits=sum(each["bits"][1] for each in comparisons),
    )


def export_table(records: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The results as a Markdown table, and the reasons of refusals below it."""
    kinds = [kind for kind in FORMATS if any(kind in row for row in records.values())]
    lines = [f"| | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    reasons: list[str] = []
    for config, row in records.items():
        cells = []
        for kind in kinds:
            result = row.get(kind)
            if result is None:
                cells.append("not run")
            elif "refused" in result:
                reason = f"{config}, {kind}: {result['refused']}"
                reasons.append(f"{len(reasons) + 1}. {reason}")
                cells.append(f"refused ({len(reasons)})")
            else:
                cells.append(f"{result['error']:.1e}" + (f", {result['bits']} bits" if result["bits"] else ""))
        lines.append(f"| `{config}` | {' | '.join(cells)} |")
    return "\n".join([*lines, *(["", *reasons] if reasons else [])])


_RECORDS: dict[str, Any] = dict(
    what="the record of exports",
    structure={str: {str: {"refused?": str, "error?": float, "bits?": int}}},
    remedy="Move the file away, or give another --records.",
)


def _run(args: argparse.Namespace) -> None:
    path = Path(args.records)
    records: dict[str, dict[str, Any]] = read_json(path, **_RECORDS) if path.is_file() else {}
    for config in args.configs:
        row = records.setdefault(config, {})
        row |= measure_exports(config, [kind for kind in args.formats if kind not in row], FAMILIES.get(config))
        save_json(records, path, indent=2)
        print(f"{config}: {row}", flush=True)
    table = export_table(records)
    print(table)
    if args.page is not None:
        _write_between_marks(Path(args.page), table)


def _run_exported(args: argparse.Namespace) -> None:
    height, width = args.size
    found = measure_file(
        args.file, args.checkpoint, size=(height, width), batch=args.batch, compiled=not args.no_compiled
    )
    for name, value in found.milliseconds.items():
        print(f"{name:<9} {value:8.1f} ms")
    for name, value in found.comparison.errors.items():
        print(f"{name}: differs by at most {value:.1e}")
    print(f"labels that differ: {found.comparison.label_disagreement:.4%}, classes: {found.comparison.classes}")


def _write_between_marks(page: Path, table: str) -> None:
    text = page.read_text(encoding="utf-8")
    before, start, rest = text.partition(_MARKS[0])
    _, end, after = rest.partition(_MARKS[1])
    if not start or not end:
        raise InvalidValueError(f"--page {page}: expected the marks {_MARKS[0]} and {_MARKS[1]}. Add both.")
    replace_file(page, f"{before}{start}\n{table}\n{end}{after}".encode())
