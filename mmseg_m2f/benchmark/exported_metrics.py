"""Metrics of a trained checkpoint through its exported files, and full results beside those of the model."""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import DictAction
from mmengine.registry import DefaultScope
from numpy.typing import NDArray

from mmseg_m2f.engine.trained_model import find_trained, load_trained
from mmseg_m2f.export.calibration import ImageSource
from mmseg_m2f.export.export_options import ExportOptions
from mmseg_m2f.export.model_export import export_model, reads_padding
from mmseg_m2f.export.precision_loss import metrics_of_test_set
from mmseg_m2f.export.result_differences import compare_full
from mmseg_m2f.models.image_pipeline import inner_dataset
from mmseg_m2f.registry import DATASETS
from mmseg_m2f.runtime import ExportedModel

_PRECISIONS = ("float32", "float16", "int8")
_FIGURES = ("mIoU", "PQ", "AP")
#: What images are cut to, so that none is a multiple of 32.
_CUTS = ((0, 1), (7, 13), (20, 3))


def add_exported_metrics(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type to itself)
    """Add the command `exported-metrics`."""
    parser = commands.add_parser(
        "exported-metrics", help="metrics of a checkpoint through its exported files", description=__doc__
    )
    parser.add_argument("config", help="the config the checkpoint was trained with")
    parser.add_argument("checkpoint", help="a .pth file")
    parser.add_argument("--images", type=int, default=128, help="of the test set; default %(default)s")
    parser.add_argument("--precisions", nargs="+", choices=_PRECISIONS, default=list(_PRECISIONS))
    parser.add_argument("--calibration", type=int, default=40, help="images of the training set; default %(default)s")
    parser.add_argument("--no-full", action="store_true", help="do not compare a full file")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    cfg, weights = find_trained(args.config, args.checkpoint, args.cfg_options)
    trained = load_trained(cfg, weights)
    before, count = metrics_of_test_set(trained.model, cfg, num_images=args.images)
    names = [name for name in before if name.rpartition("/")[2] in _FIGURES]
    print(f"| {count} images | {' | '.join(names)} |\n{'|---' * (len(names) + 1)}|")
    _print_row("checkpoint", before, names)
    with tempfile.TemporaryDirectory() as folder:
        calibration = Path(folder) / "calibration"
        scope = cfg.get("default_scope")
        images = write_images(cfg.train_dataloader.dataset, calibration, count=args.calibration, scope=scope)
        source = ImageSource(trained, cfg, calibration, with_valid=reads_padding(trained.model), most=args.calibration)
        for precision in args.precisions:
            path = Path(folder) / f"{precision}.onnx"
            options = ExportOptions(precision=precision, accept_loss=True, num_test_images=0)
            export_model(trained, cfg, path, options, images=source)
            metrics, _ = metrics_of_test_set(load_trained(cfg, path).model, cfg, num_images=args.images)
            _print_row(f"ONNX, {precision}", metrics, names)
        if args.no_full:
            return
        full = Path(folder) / "full.onnx"
        export_model(trained, cfg, full, ExportOptions(output="full"))
        found = compare_full(ExportedModel(full), trained, cfg, _cut(images[:12]))
    print("\nfull results beside `predict`, images cut to no multiples of 32:")
    print(", ".join(f"{name} {value}" for name, value in found._asdict().items()))


def write_images(dataset: Mapping, folder: Path, *, count: int, scope: str | None) -> list[NDArray]:
    """Write the first images of a dataset as PNG files, as they enter its pipeline; gives them, H W 3 each."""
    folder.mkdir(parents=True)
    with DefaultScope.overwrite_default_scope(scope):
        built = DATASETS.build({**inner_dataset(dict(dataset)), "pipeline": []})
    images = []
    for number in range(min(count, len(built))):
        info = built[number]
        images.append(np.asarray(info["img"] if "img" in info else cv2.imread(info["img_path"])))
        cv2.imwrite(str(folder / f"{number:05}.png"), images[-1])
    return images


def _cut(images: Sequence[NDArray]) -> list[NDArray]:
    cuts = [_CUTS[number % len(_CUTS)] for number in range(len(images))]
    return [x[: x.shape[0] - rows, : x.shape[1] - columns] for x, (rows, columns) in zip(images, cuts, strict=True)]


def _print_row(title: str, metrics: Mapping[str, float], names: Sequence[str]) -> None:
    print(f"| {title} | {' | '.join(f'{metrics[name]:.4f}' for name in names)} |", flush=True)
