"""What a file of lower precision loses: the metrics of the config's test set before and after, and changed labels."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from torch import nn

from mmseg_m2f.config.data_paths import check_data_paths
from mmseg_m2f.engine.split_loader import split_loader
from mmseg_m2f.engine.trained_model import TrainedModel
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.export.export_gate import Comparison
from mmseg_m2f.models.exported_network import use_exported
from mmseg_m2f.runtime import ExportedModel

Precision: TypeAlias = Literal["float32", "float16", "int8"]

#: What each of `_FIGURES` may lose, of 1.
METRIC_LOSS = 0.01
#: Share of labels that may change where no metric is measured.
CHANGED_LABELS = dict(float16=0.01, int8=0.05)

_FIGURES = ("mIoU", "PQ", "AP", "segm_mAP", "bbox_mAP", "PQ_all")


@dataclass(frozen=True)
class PrecisionLoss:
    """The loss of a file beside the model that it was made from.

    Attributes:
        changed_labels: Largest share of changed labels of the images of the gate.
        before, after: Metrics of the model and of the file for the same images of the test set; empty if not measured.
        num_images: How many images the metrics are of.
        not_measured: Why there are no metrics.
    """

    changed_labels: float
    before: Mapping[str, float]
    after: Mapping[str, float]
    num_images: int
    not_measured: str | None = None

    def as_report(self) -> dict[str, Any]:
        """For the JSON beside the file."""
        return asdict(self)

    def faults(self, precision: Precision) -> list[str]:
        """What is lost beyond `METRIC_LOSS`, or beyond `CHANGED_LABELS` where no metric is known, in words."""
        figures = [name for name in self.before if name.rpartition("/")[2] in _FIGURES and name in self.after]
        found = []
        for name in figures:
            before, after = self.before[name], self.after[name]
            scale = 100.0 if max(before, after) > 1 else 1.0  # mmseg's metrics are percentages
            if not (before - after) / scale <= METRIC_LOSS:
                found.append(f"{name} falls from {before:.4f} to {after:.4f}, expected at most {METRIC_LOSS} less")
        allowed = CHANGED_LABELS[precision]
        if not figures and not self.changed_labels <= allowed:
            found.append(f"{self.changed_labels:.2%} of the labels change, expected at most {allowed:.0%}")
        return found


def measure_loss(
    path: Path,
    trained: TrainedModel,
    cfg: Config,
    comparisons: Sequence[Comparison],
    *,
    num_images: int,
) -> PrecisionLoss:
    """Measure model and file on the first images of the test set of the config.

    Args:
        comparisons: Of the file with the model.
        num_images: How many; 0 measures no metrics.
    """
    changed = max(each.label_disagreement for each in comparisons)
    reason = _why_not(path, cfg, num_images=num_images)
    if reason is None:
        before, count = metrics_of_test_set(trained.model, cfg, num_images=num_images)
        reduced = copy.deepcopy(trained.model)
        use_exported(reduced, ExportedModel(path, threads=torch.get_num_threads()))
        try:
            after, _ = metrics_of_test_set(reduced, cfg, num_images=num_images)
            return PrecisionLoss(changed, before, after, count)
        except InvalidValueError as error:  # images of the test set have other sizes than the file
            reason = str(error)
    warnings.warn(
        f"{path.name}: no metric was measured ({reason}); changed labels alone decide. Test the file with "
        "tools/test.py before you use it.",
        stacklevel=2,
    )
    return PrecisionLoss(changed, {}, {}, 0, reason)


@torch.no_grad()
def metrics_of_test_set(model: nn.Module, cfg: Config, *, num_images: int) -> tuple[dict[str, float], int]:
    """The metrics of the first images of the test set, by the config's own evaluator, and how many images they are of.

    Raises:
        FileNotFoundError: Data are missing.
    """
    shell, seen = cast(Any, model), 0
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")), redirect_stdout(StringIO()):
        batches = split_loader(cfg, "test")
        evaluator = Evaluator(cfg.test_evaluator)
        evaluator.dataset_meta = getattr(batches.dataset, "metainfo", None)
        for batch in batches:
            evaluator.process(data_samples=shell.test_step(batch), data_batch=batch)
            seen += len(batch["inputs"])
            if seen >= num_images:
                break
        found = evaluator.evaluate(seen)
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}, seen


def refuse_loss(path: Path, loss: PrecisionLoss, precision: Precision) -> None:
    """Refuse a file that loses too much.

    Raises:
        ValueError: See `PrecisionLoss.faults`.
    """
    faults = loss.faults(precision)
    if faults:
        raise InvalidValueError(
            f"{path.name}: {precision} loses too much: {'; '.join(faults)}. The file was not written. Stay with "
            "float32, give more images to --calibration, or write the file with --accept-loss."
        )


def _why_not(path: Path, cfg: Config, *, num_images: int) -> str | None:
    if num_images < 1:
        return "--evaluate 0"
    if ExportedModel(path).record.output != "logits":
        return "files of full results cannot be tested"
    if not cfg.get("test_dataloader") or not cfg.get("test_evaluator"):
        return "the config has no test set"
    try:
        check_data_paths(cfg, loops=("test",))
    except FileNotFoundError as error:
        return str(error)
    return None
