"""Pictures and files of what a model predicts in the test loop."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.dist import collect_results
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.files import save_png
from mmseg_m2f.predictions import read_result
from mmseg_m2f.predictions.file_names import ImageNames
from mmseg_m2f.predictions.palettes import read_categories
from mmseg_m2f.predictions.result_files import ImageRecord, write_maps, write_records
from mmseg_m2f.registry import HOOKS
from mmseg_m2f.visualization import contact_sheet
from mmseg_m2f.visualization.bands import shown_channels
from mmseg_m2f.visualization.entries import sheet_entry


@HOOKS.register_module()
class DrawPredictions(Hook):
    """Writes one picture for each tested image: input, truth and prediction, with a legend.

    Panoptic maps, objects and label maps are drawn, as far as the model predicts them. The input comes from the batch,
    so that data without files is drawn too. Every process draws its own images, under names that `ImageNames` gives.

    Args:
        out_dir: Folder of the pictures, `<path of the image>.png`.
        score_threshold: Objects with a lower score are not drawn.
    """

    priority = "VERY_LOW"

    def __init__(self, out_dir: str, *, score_threshold: float = 0.5) -> None:
        self.out_dir = Path(out_dir)
        self.score_threshold = score_threshold
        self._names: ImageNames | None = None

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Mapping | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Draws the images of one batch."""
        dataset = runner.test_dataloader.dataset
        self._names = self._names or ImageNames(dataset)
        classes, palette, _ = read_categories(dataset)
        shown = shown_channels(runner.model)
        for index, sample in enumerate(outputs or ()):
            entry = sheet_entry(data_batch or {}, index, sample, num_classes=len(classes), shown=shown)
            if entry is None:
                raise _no_prediction("DrawPredictions", sample)
            width = min(max(entry.image.shape[1], 256), 1024)
            sheet = contact_sheet(
                [entry], classes, palette, cell_width=width, opacity=0.6, score_threshold=self.score_threshold
            )
            save_png(sheet, self.out_dir / self._names.of(sample).file)


@HOOKS.register_module()
class SavePredictions(Hook):
    """Writes what a model predicts for the tested images.

    Label maps become `labels/<path of the image>.png` with class indices 0...K-1 and the dataset's palette, panoptic
    maps COCO's `panoptic/<path of the image>.png` with `panoptic.json`, objects COCO's `instances.json`; see
    `predictions.result_files`.
    The JSON files are written after the last image, by the first process for all.

    Args:
        out_dir: Folder of all that.
    """

    priority = "VERY_LOW"

    def __init__(self, out_dir: str) -> None:
        self.out_dir = Path(out_dir)
        self._names: ImageNames | None = None
        self._records: list[ImageRecord] = []

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Mapping | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Saves the maps of one batch."""
        dataset = runner.test_dataloader.dataset
        self._names = self._names or ImageNames(dataset)
        categories = read_categories(dataset)
        for sample in outputs or ():
            result = read_result(sample)
            if result is None:
                raise _no_prediction("SavePredictions", sample)
            name = self._names.of(sample)
            self._records.append(write_maps(result, self.out_dir, name=name, categories=categories))

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        """Writes the JSON files."""
        dataset = runner.test_dataloader.dataset
        # A sampler gives the last images to several processes; `write_records` keeps one record of each image.
        records = collect_results(self._records, sys.maxsize)
        self._records = []
        if records is not None:  # in the first process
            write_records(records, self.out_dir, categories=read_categories(dataset))


def _no_prediction(hook: str, sample: BaseDataElement) -> InvalidValueError:
    return InvalidValueError(
        f"{hook}, {sample.metainfo.get('img_path')}: expected 'pred_panoptic_seg', 'pred_instances' or "
        f"'pred_sem_seg', got {sample.keys()}. Use the hook with a segmentor or a detector; a MaskDetector predicts "
        "what its test_cfg says."
    )
