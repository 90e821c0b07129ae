"""Pictures and files of what a model predicts in the test loop."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.dist import collect_results
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.files import save_png
from mmseg_m2f.predictions import read_prediction
from mmseg_m2f.predictions.files import ImageRecord, write_maps, write_records
from mmseg_m2f.predictions.palettes import class_colours
from mmseg_m2f.predictions.samples import sample_name
from mmseg_m2f.registry import HOOKS
from mmseg_m2f.visualization import contact_sheet
from mmseg_m2f.visualization.entries import sheet_entry


@HOOKS.register_module()
class DrawPredictions(Hook):
    """Writes one picture for each tested image: input, truth and prediction, with a legend.

    Panoptic maps, objects and label maps are drawn, as far as the model answers them. The input comes from the batch,
    so that data without files is drawn too. Every process draws its own images.

    Args:
        out_dir: Folder of the pictures, `<image name>.png`.
        score_threshold: Objects with a lower score are not drawn.
    """

    priority = "VERY_LOW"

    def __init__(self, out_dir: str, *, score_threshold: float = 0.5) -> None:
        self.out_dir = Path(out_dir)
        self.score_threshold = score_threshold
        self._names = _UniqueNames()

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Mapping | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Draws the images of one batch."""
        classes, palette = class_colours(runner.test_dataloader.dataset)
        for index, sample in enumerate(outputs or ()):
            entry = sheet_entry(data_batch or {}, index, sample, num_classes=len(classes))
            if entry is None:
                raise _no_prediction("DrawPredictions", sample)
            width = min(max(entry.image.shape[1], 256), 1024)
            sheet = contact_sheet(
                [entry], classes, palette, cell_width=width, opacity=0.6, score_threshold=self.score_threshold
            )
            save_png(sheet, self.out_dir / f"{self._names.claim(entry.name)}.png")


@HOOKS.register_module()
class SavePredictions(Hook):
    """Writes what a model predicts for the tested images.

    Label maps become `labels/<image name>.png` with class indices 0...K-1 and the dataset's palette, panoptic maps
    COCO's `panoptic/<image name>.png` with `panoptic.json`, objects COCO's `instances.json`; see `predictions.files`.
    The JSON files are written after the last image, by the first process for all.

    Args:
        out_dir: Folder of all that.
    """

    priority = "VERY_LOW"

    def __init__(self, out_dir: str) -> None:
        self.out_dir = Path(out_dir)
        self._names = _UniqueNames()
        self._records: list[ImageRecord] = []

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Mapping | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Saves the maps of one batch."""
        classes, palette = class_colours(runner.test_dataloader.dataset)
        for sample in outputs or ():
            prediction = read_prediction(sample)
            if prediction is None:
                raise _no_prediction("SavePredictions", sample)
            file = f"{self._names.claim(sample_name(sample))}.png"
            image = str(sample.metainfo.get("img_path") or file)
            self._records.append(
                write_maps(prediction, self.out_dir, file=file, image=image, num_classes=len(classes), palette=palette)
            )

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        """Writes the JSON files."""
        dataset = runner.test_dataloader.dataset
        records = collect_results(self._records, len(dataset))
        self._records = []
        if records is not None:  # in the first process
            classes, palette = class_colours(dataset)
            write_records(records, self.out_dir, classes=classes, palette=palette)


class _UniqueNames:
    """File names without folder and suffix; a name that was taken gets a number."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def claim(self, name: str) -> str:
        number = self._taken.get(name, 0) + 1
        self._taken[name] = number
        return name if number == 1 else f"{name}_{number}"


def _no_prediction(hook: str, sample: BaseDataElement) -> InvalidValueError:
    return InvalidValueError(
        f"{hook}, {sample_name(sample)}: expected 'pred_panoptic_seg', 'pred_instances' or 'pred_sem_seg', got "
        f"{sample.keys()}. Use the hook with a segmentor or a detector; a MaskDetector answers what its test_cfg says."
    )
