"""What a training run has to show: figures, curves and pictures in the work folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from torch import nn

from mmseg_m2f.engine.crop_comparison import CropComparison
from mmseg_m2f.files import replace_file, save_png
from mmseg_m2f.json_files import read_json
from mmseg_m2f.predictions.palettes import class_colours
from mmseg_m2f.registry import HOOKS
from mmseg_m2f.visualization import Curve, SheetEntry, contact_sheet, plot_curves, scale_entry
from mmseg_m2f.visualization.bands import shown_channels
from mmseg_m2f.visualization.entries import sheet_entry

_MAX_LOSS_CURVES = 6
_CELL_WIDTH = 256
_BATCHES_COMPARED = 50
#: Metrics by their names behind the last slash. The first main one that a run has is what "best" means.
MAIN_METRICS = ("PQ", "AP", "segm_mAP", "bbox_mAP", "matching_AP50", "mIoU")
_CURVES = (
    *MAIN_METRICS,
    *("aAcc", "PQ_things", "PQ_stuff", "AP50", "segm_mAP_50", "bbox_mAP_50"),
    *("boundary_mIoU", "boundary_PQ", "boundary_AP"),
)
_Validation: TypeAlias = dict[str, int | float]  # `iteration` and the metrics


@HOOKS.register_module()
class Report(Hook):
    """Keeps `metrics.json`, `curves.png` and `contact_sheet.png` up to date while a run trains.

    All three are rewritten after each validation, each in one step, by the first process alone.
    `metrics.json` holds the last validation's metrics and `iteration` at the top, `best` (the same for the
    best `PQ`, AP or `mIoU` so far) and `history` (one entry for each validation). The end of training logs what
    was learnt and where to look.

    Training losses come from mmengine's message hub, which has them on the host already and stores them in
    checkpoints: the hook adds nothing to an iteration, and a resumed run shows its whole past. Past
    validations are read back from `metrics.json`, up to the iteration the run resumes from.

    The sheet shows what the model predicts of panoptic maps, objects and label maps, and their truth where the
    validation data have it.

    The last lines also say if validation images are much larger or more crowded than the crops of the first batches,
    and the model looks at them as a whole (`CropComparison`).

    Args:
        num_images: Validation images on the contact sheet, spread evenly over the dataset.
        out_dir: Where to write; the run's work folder if not given.
    """

    priority = "LOWEST"  # after the checkpoint hook, whose paths the last lines name

    def __init__(self, *, num_images: int = 6, out_dir: str | None = None) -> None:
        self.num_images = num_images
        self.out_dir = None if out_dir is None else Path(out_dir)
        self._training = False
        self._entries: list[SheetEntry] = []
        self._history: list[_Validation] = []
        self._comparison, self._batches_compared = CropComparison(), 0

    def before_train(self, runner: Runner) -> None:
        """Takes up the validations of the run that is being resumed; a fresh run starts with none."""
        self._training = is_main_process()
        if self._training:
            self._history = [m for m in _read_history(self._folder(runner)) if m["iteration"] <= runner.iter]

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Mapping | None = None, outputs: object = None
    ) -> None:
        """Looks at the sizes of the first crops."""
        if self._training and self._batches_compared < _BATCHES_COMPARED:
            self._batches_compared += 1
            self._comparison.note_crops(data_batch)

    def before_val_epoch(self, runner: Runner) -> None:
        """Forgets the pictures and sizes of the last validation."""
        self._entries = []
        self._comparison.forget_images()

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Mapping | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Keeps the images of the batch that the contact sheet wants."""
        if not self._training:
            return
        self._comparison.note_images(outputs or ())
        num_batches = len(runner.val_dataloader)
        if batch_idx % max(num_batches // max(self.num_images, 1), 1):
            return
        classes, _ = class_colours(runner.val_dataloader.dataset)
        wanted = min(-(-self.num_images // num_batches), self.num_images - len(self._entries))
        shown = shown_channels(runner.model)
        for index, sample in enumerate((outputs or ())[:wanted]):
            entry = sheet_entry(data_batch or {}, index, sample, num_classes=len(classes), shown=shown)
            if entry is not None:
                self._entries.append(scale_entry(entry, _CELL_WIDTH))  # hundreds of full masks would fill the memory

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, object] | None = None) -> None:
        """Writes the three files."""
        if not self._training:
            return
        numbers = {k: v for k, v in (metrics or {}).items() if isinstance(v, (int, float, np.number))}
        scalars = {name: float(value) for name, value in numbers.items() if np.isfinite(value)}
        self._history = [m for m in self._history if m["iteration"] < runner.iter]
        self._history.append({"iteration": runner.iter, **scalars})
        folder = self._folder(runner)
        _write_metrics(folder, self._history)
        self._save_curves(runner)
        if self._entries:
            classes, palette = class_colours(runner.val_dataloader.dataset)
            sheet = contact_sheet(self._entries, classes, palette, cell_width=_CELL_WIDTH)
            save_png(sheet, folder / "contact_sheet.png")

    def after_train(self, runner: Runner) -> None:
        """Draws the curves if they have grown since the last validation; says what was learnt and where to look."""
        if not self._training:
            return
        self._training = False
        if not self._history or self._history[-1]["iteration"] < runner.iter:  # else the last validation drew them
            self._save_curves(runner)
        for line in self._summary(runner):
            runner.logger.info(line)
        if not _has_windows(runner.model) and (advice := self._comparison.advice()):
            runner.logger.info(advice)

    def _folder(self, runner: Runner) -> Path:
        return self.out_dir or Path(runner.work_dir)

    def _save_curves(self, runner: Runner) -> None:
        names = _known(self._history, _CURVES)
        scores = {
            name: Curve(*np.array([(m["iteration"], m[name]) for m in self._history if name in m]).T) for name in names
        }
        picture = plot_curves(
            _loss_curves(runner.message_hub, runner.iter),
            scores=scores,
            learning_rate=_learning_rate(runner.message_hub, runner.iter),
        )
        save_png(picture, self._folder(runner) / "curves.png")

    def _summary(self, runner: Runner) -> list[str]:
        """The last lines of a run."""
        folder = self._folder(runner)
        lines = [f"Trained for {runner.iter} iterations."]
        if self._history:
            last, best, main = self._history[-1], _best(self._history), _main_metric(self._history)
            if main in last:
                lines[0] = f"Learnt: {main} {last[main]:.4f} after {runner.iter} iterations"
                lines[0] += f" (best {best[main]:.4f} at {best['iteration']})."
            start = "IoU." if main == "mIoU" else f"{main}."
            ranked = sorted((value, name.removeprefix(start)) for name, value in last.items() if name.startswith(start))
            if ranked:
                lines.append("Best classes:  " + ", ".join(f"{name} {iou:.3f}" for iou, name in ranked[:-4:-1]))
                lines.append("Worst classes: " + ", ".join(f"{name} {iou:.3f}" for iou, name in ranked[:3]))
        info = runner.message_hub.runtime_info
        places = {
            "best checkpoint": info.get("best_ckpt"),
            "last checkpoint": info.get("last_ckpt"),
            "metrics": folder / "metrics.json",
            "curves": folder / "curves.png",
            "contact sheet": folder / "contact_sheet.png",
        }
        known = {what: path for what, path in places.items() if path and Path(path).exists()}
        return lines + [f"Look at {what + ':':<17}{path}" for what, path in known.items()]


def _has_windows(model: nn.Module) -> bool:
    """Whether a model, maybe wrapped for several processes, looks through windows."""
    test_cfg = getattr(getattr(model, "module", model), "test_cfg", None)
    return isinstance(test_cfg, Mapping) and test_cfg.get("mode") == "slide"


def _main_metric(history: Sequence[_Validation]) -> str:
    """The metric by which validations are compared."""
    return next(iter(_known(history, MAIN_METRICS)), "mIoU")


def _known(history: Sequence[_Validation], names: Sequence[str]) -> list[str]:
    """The full names of those metrics that the history has, in the order of `names`."""
    full = dict.fromkeys(name for validation in history for name in validation)
    return [metric for name in names for metric in full if metric.rpartition("/")[2] == name]


def _best(history: Sequence[_Validation]) -> _Validation:
    """The validation with the highest main metric, the earliest of equals; the last one where there is none."""
    main = _main_metric(history)
    scored = [m for m in history if main in m]
    return max(scored, key=lambda m: m[main]) if scored else history[-1]


def _write_metrics(folder: Path, history: Sequence[_Validation]) -> None:
    """Write `metrics.json` in one step."""
    content = {**history[-1], "best": _best(history), "history": history}
    replace_file(folder / "metrics.json", (json.dumps(content, indent=2) + "\n").encode())


def _read_history(folder: Path) -> list[_Validation]:
    """The validations an earlier part of the run left; none where the file is missing.

    Raises:
        ValueError: The file is there, but not one of this hook.
    """
    path = folder / "metrics.json"
    return read_history(path, remedy="Move the file away or choose another work folder.") if path.exists() else []


def read_history(path: Path, *, remedy: str) -> list[_Validation]:
    """The validations of a `metrics.json`.

    Raises:
        FileNotFoundError, ValueError: There is no such file, or it is not one of this hook.
    """
    structure = {"history": [{"iteration": int, str: float}]}
    what = "the metrics of an earlier run with a 'history'"
    return read_json(path, what=what, structure=structure, remedy=remedy)["history"]


def _loss_curves(hub: MessageHub, iteration: int) -> dict[str, Curve]:
    """The total loss and its parts of the last layer (`loss_cls`, not `d0.loss_cls`), at most six curves."""
    names = [name.removeprefix("train/") for name in hub.log_scalars if name.startswith("train/") and "loss" in name]
    names = [name for name in names if name == "loss" or not _is_auxiliary(name)]
    names.sort(key=lambda name: name != "loss")
    return {name: _curve(hub, f"train/{name}", iteration) for name in names[:_MAX_LOSS_CURVES]}


def _is_auxiliary(name: str) -> bool:
    """Whether the loss belongs to an intermediate decoder layer: `d3.loss_mask`."""
    return any(part[:1] == "d" and part[1:].isdigit() for part in name.split("."))


def _learning_rate(hub: MessageHub, iteration: int) -> Curve | None:
    """The base learning rate where parameter groups differ, else that of the only group."""
    for name in ("train/base_lr", "train/lr"):
        if name in hub.log_scalars:
            return _curve(hub, name, iteration)
    return None


def _curve(hub: MessageHub, name: str, iteration: int) -> Curve:
    """The values of all iterations; the last one belongs to `iteration`."""
    values = np.asarray(hub.log_scalars[name].data[0], dtype=np.float64)
    return Curve(np.arange(iteration - len(values), iteration) + 1, values)
