"""Metrics of a trained checkpoint through its exported files, and full results beside those of the model."""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from numpy.typing import NDArray

from mmseg_m2f.engine.trained_model import TrainedModel, find_trained, load_trained, test_transforms
from mmseg_m2f.export.calibration import ImageSource
from mmseg_m2f.export.model_export import ExportOptions, export_model, reads_padding
from mmseg_m2f.export.precision_loss import metrics_of_test_set
from mmseg_m2f.models.image_pipeline import inner_dataset
from mmseg_m2f.registry import DATASETS
from mmseg_m2f.runtime import ExportedModel

_PRECISIONS = ("float32", "float16", "int8")
_FIGURES = ("mIoU", "PQ", "AP")
#: What images are cut to, so that none is a multiple of 32.
_CUTS = ((0, 1), (7, 13), (20, 3))


class Differences(NamedTuple):
    """How results of a full file differ from the model's: counts of pixels and objects, largest difference of scores.

    `objects` counts those of the model that the file lacks, or whose box or mask differs, and those that only the file
    has.
    """

    num_images: int = 0
    labels: int = 0
    panoptic: int = 0
    num_objects: int = 0
    objects: int = 0
    scores: float = 0.0

    def plus(self, other: "Differences") -> "Differences":
        """Of the images of both."""
        counts = [one + two for one, two in zip(self[:-1], other[:-1], strict=True)]
        return Differences(*cast(list[int], counts), max(self.scores, other.scores))


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


@torch.no_grad()
def compare_full(file: ExportedModel, trained: TrainedModel, cfg: Config, images: Sequence[NDArray]) -> Differences:
    """Results of a full file beside those of the model, for images H W 3 as read, at the size of the test pipeline."""
    _, transforms = test_transforms(cfg, trained.dataset)
    found = Differences()
    for image in images:
        size = image.shape[:2]
        packed = transforms(dict(img=image, img_shape=size, ori_shape=size, seg_fields=[]))
        packed["data_samples"].set_metainfo(dict(ori_shape=tuple(packed["inputs"].shape[1:])))  # files do not resize
        sample = cast(Any, trained.model).test_step(pseudo_collate([packed]))[0]
        results = file(packed["inputs"].numpy()[None])
        found = found.plus(compare_image({name: value[0] for name, value in results.items()}, sample))
    return found


def compare_image(results: Mapping[str, NDArray], sample: Any) -> Differences:  # noqa: ANN401
    """Outputs of a full file for one image beside the data sample that `predict` filled."""
    labels = panoptic = 0
    if "labels" in results:
        semantic = sample.pred_sem_seg
        maps = semantic.sem_seg if "sem_seg" in semantic else semantic.data
        labels = int((maps[0].numpy() != results["labels"]).sum())
    if "panoptic" in results:
        panoptic = int((sample.pred_panoptic_seg.sem_seg[0].numpy() != results["panoptic"]).sum())
    if "object_scores" not in results:
        return Differences(1, labels, panoptic)
    wanted = sample.pred_instances
    own = [number for number in range(len(wanted)) if wanted.scores[number] > 0]
    free = {number for number, score in enumerate(results["object_scores"]) if score > 0}
    missing, worst = 0, 0.0
    for number in own:
        same = [other for other in free if _is_same_object(results, other, wanted, number)]
        if not same:
            missing += 1
            continue
        score = float(wanted.scores[number])
        nearest = min(same, key=lambda other: abs(float(results["object_scores"][other]) - score))
        worst = max(worst, abs(float(results["object_scores"][nearest]) - score))
        free.remove(nearest)
    return Differences(1, labels, panoptic, len(own), missing + len(free), worst)


def _is_same_object(results: Mapping[str, NDArray], other: int, wanted: Any, number: int) -> bool:  # noqa: ANN401
    if results["object_labels"][other] != int(wanted.labels[number]):
        return False
    if not np.array_equal(results["object_boxes"][other], wanted.bboxes[number].numpy()):
        return False
    masks = results.get("object_masks")
    return masks is None or np.array_equal(masks[other], np.asarray(wanted.masks[number]).astype(bool))


def _run(args: argparse.Namespace) -> None:
    cfg, weights = find_trained(args.config, args.checkpoint, args.cfg_options)
    trained = load_trained(cfg, weights)
    before, count = metrics_of_test_set(trained.model, cfg, num_images=args.images)
    names = [name for name in before if name.rpartition("/")[2] in _FIGURES]
    print(f"| {count} images | {' | '.join(names)} |\n{'|---' * (len(names) + 1)}|")
    _print_row("checkpoint", before, names)
    with tempfile.TemporaryDirectory() as folder:
        calibration = Path(folder) / "calibration"
        write_images(cfg.train_dataloader.dataset, calibration, count=args.calibration, scope=cfg.get("default_scope"))
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
        found = compare_full(ExportedModel(full), trained, cfg, list(_cut_images(calibration)))
    print("\nfull results beside `predict`, images cut to no multiples of 32:")
    print(", ".join(f"{name} {value}" for name, value in found._asdict().items()))


def write_images(dataset: Mapping, folder: Path, *, count: int, scope: str | None) -> None:
    """Write the first images of a dataset as PNG files, as they enter its pipeline."""
    folder.mkdir(parents=True)
    with DefaultScope.overwrite_default_scope(scope):
        built = DATASETS.build({**inner_dataset(dict(dataset)), "pipeline": []})
    for number in range(min(count, len(built))):
        info = built[number]
        image = info["img"] if "img" in info else cv2.imread(info["img_path"])
        cv2.imwrite(str(folder / f"{number:05}.png"), image)


def _cut_images(folder: Path) -> list[NDArray]:
    images = [cv2.imread(str(path)) for path in sorted(folder.iterdir())[:12]]
    cuts = [_CUTS[number % len(_CUTS)] for number in range(len(images))]
    return [x[: x.shape[0] - rows, : x.shape[1] - columns] for x, (rows, columns) in zip(images, cuts, strict=True)]


def _print_row(title: str, metrics: Mapping[str, float], names: Sequence[str]) -> None:
    print(f"| {title} | {' | '.join(f'{metrics[name]:.4f}' for name in names)} |", flush=True)
