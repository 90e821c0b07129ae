"""Files of one size and the file of any size beside the model, at the sizes that models are used at."""

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config, DictAction

from mmseg_m2f.benchmark.exports import measure_file_of
from mmseg_m2f.config.load import load_config
from mmseg_m2f.engine.trained_model import TrainedModel, load_trained
from mmseg_m2f.export.export_options import ExportOptions
from mmseg_m2f.export.model_export import export_model


class SizeFigures(NamedTuple):
    """One file at one size beside its model.

    Attributes:
        kind: "any size" or "one size".
        size: Height and width in pixels.
        error: Largest difference of the logits.
        bits: How many attention bits differ; known for files of one size alone, whose checks see them.
        labels: Share of pixels that get another class.
        milliseconds: Of the model and of the file.
    """

    kind: str
    size: tuple[int, int]
    error: float
    bits: int | None
    labels: float
    milliseconds: Mapping[str, float]


def add_exported_sizes(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type to itself)
    """Add the command `exported-sizes`."""
    parser = commands.add_parser("exported-sizes", help="files of one size and of any size", description=__doc__)
    parser.add_argument("config", help="built with random weights")
    parser.add_argument(
        "--sides", type=int, nargs="+", default=[512, 1024], help="of square images; default %(default)s"
    )
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE")
    parser.set_defaults(run=_run)


def measure_sizes(trained: TrainedModel, cfg: Config, sizes: Sequence[tuple[int, int]]) -> Iterator[SizeFigures]:
    """Export a file of any size and one of each size, and compare each with the model at the sizes.

    Raises:
        ValueError: The checks refused a file.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.onnx"
        export_model(trained, cfg, path)
        for size in sizes:
            milliseconds, found = measure_file_of(trained.model, path, size=size, compiled=False)
            worst = max(found.errors.values(), default=0.0)
            yield SizeFigures("any size", size, worst, None, found.label_disagreement, milliseconds)
        for size in sizes:
            report = export_model(trained, cfg, path, ExportOptions(size=size))
            errors = {name: x for name, x in report["max_errors"].items() if "features" not in name}
            bits, labels = report["attention_bits_differing"], report["label_disagreement"]
            worst = max(errors.values(), default=0.0)
            yield SizeFigures("one size", size, worst, bits, labels, report["latency_ms"])


def _run(args: argparse.Namespace) -> None:
    cfg = load_config(args.config, args.cfg_options)
    torch.manual_seed(0)
    print("| file | images | logits differ by | bits | labels differ | model ms | file ms |\n" + "|---" * 7 + "|")
    for each in measure_sizes(load_trained(cfg), cfg, [(side, side) for side in args.sides]):
        bits = "not counted" if each.bits is None else each.bits
        times = each.milliseconds
        print(
            f"| {each.kind} | {each.size[0]} x {each.size[1]} | {each.error:.1e} | {bits} | {each.labels:.4%} "
            f"| {times['eager']:.0f} | {times['exported']:.0f} |",
            flush=True,
        )
