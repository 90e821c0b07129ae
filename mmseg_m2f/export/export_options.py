"""What to export, and what cannot be: options that do not fit the model or the format are refused before any work."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.export.precision_loss import Precision
from mmseg_m2f.export.programs import Lowering, Shape
from mmseg_m2f.export.wrappers import is_mask_classifier, size_multiple
from mmseg_m2f.export.writers import FIRST_OPSET, check_opset
from mmseg_m2f.models.normalisation import Normalisation
from mmseg_m2f.runtime import SUFFIXES
from mmseg_m2f.runtime.export_record import Output


@dataclass(frozen=True)
class ExportOptions:
    """What to export.

    Attributes:
        output: "logits" or "full" results.
        size: Height and width for a file of one size and one image; None for any number of images of any size.
        lowering: Of bilinear reading at points; see `trace`.
        opset: Of ONNX.
        precision: "float32", "float16" or "int8".
        max_per_image: Objects per image of full results; the config's own unless given.
        accept_loss: Write a file of lower precision even where it loses more than `PrecisionLoss` allows.
        num_test_images: Of the config's test set, that metrics of a file of lower precision are measured on.
        with_script: Write a stand-alone script beside a full ONNX file.
        licence: Of the weights.
        measure_compiled: Also measure the compiled model.
    """

    output: Output = "logits"
    size: tuple[int, int] | None = None
    lowering: Lowering = "gridsample"
    opset: int = FIRST_OPSET
    precision: Precision = "float32"
    max_per_image: int | None = None
    accept_loss: bool = False
    num_test_images: int = 100
    with_script: bool = False
    licence: str = "not stated"
    measure_compiled: bool = False


def check_options(out: Path, model: nn.Module, options: ExportOptions, *, has_images: bool) -> None:
    """Refuse what does not fit.

    Args:
        out: The file that is to be written.
        has_images: Whether there are images to measure ranges on.

    Raises:
        ValueError: An option that the model or the format does not have, or a number out of its range.
    """
    if out.suffix not in SUFFIXES:
        raise InvalidValueError(
            f"--out {out}: expected a name that ends in one of {', '.join(SUFFIXES)}, got '{out.suffix}'. The suffix "
            "chooses the format."
        )
    taken = next((folder for folder in out.parents if folder.exists()), Path())
    if out.is_dir() or not taken.is_dir():
        raise InvalidValueError(
            f"--out {out}: expected the name of a file in a folder, got {'a folder' if out.is_dir() else ''}"
            f"{'' if taken.is_dir() else f'{taken}, which is a file'}. Choose another name."
        )
    check_opset(options.opset)
    multiple = _size_multiple(model, options)
    if options.size is not None and min(options.size) < 1:
        raise InvalidValueError(
            f"--size {options.size[0]} {options.size[1]}: expected a height and a width of at least 1 pixel. Correct "
            "them, or leave --size out for a file of any size."
        )
    if options.size is not None and any(length % multiple for length in options.size):
        raise InvalidValueError(
            f"--size {options.size[0]} {options.size[1]}: expected multiples of {multiple}, the patch "
            "size of the backbone. "
            f"Take {' '.join(str(-(-length // multiple) * multiple) for length in options.size)}."
        )
    if options.precision != "float32" and out.suffix != ".onnx":
        raise InvalidValueError(
            f"--out {out}: expected .onnx for a file in {options.precision}, got '{out.suffix}'. "
            "Change the name, or leave "
            "--fp16 and --int8 out."
        )
    if options.precision == "int8" and not has_images:
        raise InvalidValueError(
            "--int8: expected --calibration with a folder of images, which the ranges of numbers are measured on, got "
            "none. Give about a hundred images of the training set."
        )
    if options.with_script and (out.suffix != ".onnx" or options.output != "full"):
        raise InvalidValueError(
            f"--with-script: expected an ONNX file of full results, got {out.name} with --output {options.output}. "
            "Logits need this package; add --output full."
        )
    _check_count(model, options)


def shape_of(model: nn.Module, options: ExportOptions) -> Shape:
    """What images the file takes; full files pad by themselves, to multiples of the patches if the config says so."""
    multiple = _size_multiple(model, options)
    return Shape(None if options.size is None else 1, options.size, multiple, channels_of(model))


def channels_of(model: nn.Module) -> int:
    """Of the images: what the first convolution of the backbone takes, 3 for per-pixel models."""
    first = next((part for part in cast(Any, model).backbone.modules() if isinstance(part, nn.Conv2d)), None)
    return 3 if first is None or not is_mask_classifier(model) else first.in_channels


def _size_multiple(model: nn.Module, options: ExportOptions) -> int:
    multiple = size_multiple(model)
    pads = options.output == "full" and Normalisation.of_model(model).size_divisor % multiple == 0
    return 1 if pads else multiple


def _check_count(model: nn.Module, options: ExportOptions) -> None:
    """Refuse a number of objects that nothing reads, or that no file can have."""
    count = options.max_per_image
    if count is None:
        return
    predicts_objects = hasattr(model, "is_thing") and cast(Any, model).test_cfg["instance"]
    if count < 1 or options.output != "full" or not predicts_objects:
        raise InvalidValueError(
            f"--max-per-image {count}: expected at least 1, --output full, and a model that predicts objects, got "
            f"--output {options.output} of {type(model).__name__}{'' if predicts_objects else ' without objects'}. "
            "Leave it out; files of logits follow model.test_cfg.max_per_image of their config."
        )
