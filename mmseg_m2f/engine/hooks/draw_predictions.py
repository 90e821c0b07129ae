"""Pictures and label files of what a model predicts in the test loop."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from numpy.typing import NDArray
from torch import Tensor

from mmseg_m2f.registry import HOOKS
from mmseg_m2f.visualization import (
    IGNORE_INDEX,
    Palette,
    SheetEntry,
    contact_sheet,
    distinct_palette,
    label_image,
    save_png,
)


@HOOKS.register_module()
class DrawPredictions(Hook):
    """Writes one picture for each tested image: input, truth and prediction with the legend.

    The input comes from the batch, so that data without files is drawn too. Every process draws its own
    images.

    Args:
        out_dir: Folder of the pictures, `<image name>.png`.
    """

    priority = "VERY_LOW"

    def __init__(self, out_dir: str) -> None:
        self.out_dir = Path(out_dir)
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
            entry = sheet_entry(data_batch or {}, index, sample)
            if entry is None:
                raise _not_semantic("DrawPredictions", sample)
            width = min(max(entry.image.shape[1], 256), 1024)
            sheet = contact_sheet([entry], classes, palette, cell_width=width, opacity=0.6)
            save_png(sheet, self.out_dir / f"{self._names.claim(entry.name)}.png")


@HOOKS.register_module()
class SaveLabels(Hook):
    """Writes one PNG for each tested image whose pixel values are the predicted class indices 0...K-1.

    The palette of the dataset is stored along, so that image viewers show colours.

    Args:
        out_dir: Folder of the files, `<image name>.png`.
    """

    priority = "VERY_LOW"

    def __init__(self, out_dir: str) -> None:
        self.out_dir = Path(out_dir)
        self._names = _UniqueNames()

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Mapping | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Saves the labels of one batch."""
        _, palette = class_colours(runner.test_dataloader.dataset)
        for sample in outputs or ():
            prediction = _labels(sample, "pred_sem_seg")
            if prediction is None:
                raise _not_semantic("SaveLabels", sample)
            name = self._names.claim(sample_name(sample))
            save_png(label_image(prediction, palette), self.out_dir / f"{name}.png")


class _UniqueNames:
    """File names without folder and suffix; a name that was taken gets a number."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def claim(self, name: str) -> str:
        number = self._taken.get(name, 0) + 1
        self._taken[name] = number
        return name if number == 1 else f"{name}_{number}"


def class_colours(dataset: object) -> tuple[list[str], Palette]:
    """Class names and palette of a dataset; colours are made up where it has none.

    Raises:
        ValueError: The dataset does not name its classes.
    """
    metainfo = getattr(dataset, "metainfo", {})
    classes = list(metainfo.get("classes") or ())
    if not classes:
        raise ValueError(
            f"{type(dataset).__name__}: expected class names to draw with, got metainfo {metainfo}. "
            "Pass metainfo=dict(classes=[...]) in the dataset config."
        )
    palette = metainfo.get("palette") or ()
    return classes, palette if len(palette) == len(classes) else distinct_palette(len(classes))


def sheet_entry(data_batch: Mapping, index: int, sample: BaseDataElement) -> SheetEntry | None:
    """Input, truth and prediction of image `index` of a batch; None where nothing semantic was predicted.

    The input is taken from the batch before normalisation (3 H W, BGR).
    """
    prediction = _labels(sample, "pred_sem_seg")
    if prediction is None:
        return None
    inputs = _plain_view(data_batch)[index]
    image = np.ascontiguousarray(inputs.cpu().numpy()[::-1].transpose(1, 2, 0))  # C H W, BGR -> H W C, RGB
    truth = _labels(sample, "gt_sem_seg")
    return SheetEntry(sample_name(sample), image, truth, prediction)


def sample_name(sample: BaseDataElement) -> str:
    """The image's file name without folder and suffix."""
    path = str(sample.metainfo.get("img_path") or "image")
    return PurePath(path).stem if PurePath(path).suffix else PurePath(path).name


def _plain_view(data_batch: Mapping) -> Sequence[Tensor]:
    """The inputs of a batch; with test-time augmentation the largest view that is not flipped."""
    inputs = data_batch["inputs"]
    if isinstance(inputs[0], Tensor):
        return inputs
    upright = [
        view
        for view, samples in zip(inputs, data_batch["data_samples"], strict=True)
        if not samples[0].metainfo.get("flip")
    ]
    return max(upright or inputs, key=lambda view: view[0].shape[-1])


def _labels(sample: BaseDataElement, key: str) -> NDArray[np.int64] | None:
    """H W label map of a sample; None if it has none."""
    if key not in sample:
        return None
    labels = sample.get(key).data
    labels = (labels[0] if labels.ndim == 3 else labels).cpu().numpy()
    return np.where(labels < 0, IGNORE_INDEX, labels)


def _not_semantic(hook: str, sample: BaseDataElement) -> ValueError:
    return ValueError(
        f"{hook}, {sample_name(sample)}: expected a semantic prediction 'pred_sem_seg', got {sample.keys()}. "
        "Use the hook with a semantic segmentor."
    )
