"""Entries of a contact sheet, read from the batches of a validation or test loop."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from mmengine.structures import BaseDataElement
from torch import Tensor

from mmseg_m2f.predictions import read_result, read_truth
from mmseg_m2f.visualization.bands import show_bands
from mmseg_m2f.visualization.sheets import SheetEntry


def sheet_entry(
    data_batch: Mapping,
    index: int,
    sample: BaseDataElement,
    *,
    num_classes: int,
    shown: Sequence[int] | None = None,
) -> SheetEntry | None:
    """Input, truth and prediction of image `index` of a batch; None where nothing was predicted.

    The input is taken from the batch before normalisation: 3 H W, BGR, or C H W with `shown`, see `show_bands`.
    """
    result = read_result(sample)
    if result is None:
        return None
    inputs = _plain_view(data_batch)[index]
    image = show_bands(inputs.cpu().numpy(), shown)
    return SheetEntry(_heading(sample), image, read_truth(sample, num_classes), result)


def _heading(sample: BaseDataElement) -> str:
    """The image's file name without folder and suffix."""
    path = PurePath(str(sample.metainfo.get("img_path") or "image"))
    return path.stem if path.suffix else path.name


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
