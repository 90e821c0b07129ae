"""A model whose backbone, neck and head are an exported file: pipeline, windows, flips and results stay its own."""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.normalisation import Normalisation
from mmseg_m2f.runtime import ExportedModel
from mmseg_m2f.structures import BoxPrediction, Prediction


class StoredPrediction(NamedTuple):
    """A prediction whose mask logits are there already."""

    class_logits: Float[Tensor, "B Q K1"]
    masks: Float[Tensor, "B Q H W"]

    @property
    def has_masks(self) -> bool:
        """Always."""
        return True

    def mask_logits(self) -> Float[Tensor, "B Q H W"]:
        """All of them."""
        return self.masks

    def mask_logits_of(self, images: Int[Tensor, "N"], queries: Int[Tensor, "N"]) -> Float[Tensor, "N H W"]:
        """Mask logits of query `queries[n]` of image `images[n]`, for every n."""
        return self.masks[images, queries]

    def float(self) -> "StoredPrediction":
        """The same in float32."""
        return StoredPrediction(self.class_logits.float(), self.masks.float())


class ExportedNetwork:
    """Runs a file of logits in the place of backbone, neck and head."""

    def __init__(self, file: ExportedModel) -> None:
        self.file = file

    def __call__(
        self,
        model: nn.Module,
        compute: Callable[..., object],
        images: Float[Tensor, "B C H W"],
        valid: Bool[Tensor, "B H W"] | None = None,
        *,
        kind: str,
    ) -> Prediction:
        """The last layer's prediction; arguments are those of `GraphedNetwork`.

        Raises:
            ValueError: the model is being trained, or the file does not take these images.
        """
        if kind != "last layer":
            _refuse_training(self.file)
        found = self.run(images, valid)
        if "boxes" not in found:
            return cast(Prediction, StoredPrediction(found["class_logits"], found["mask_logits"]))
        masks = found.get("mask_logits")
        maker = None if masks is None else lambda numbers, queries: masks[numbers, queries]
        return cast(Prediction, BoxPrediction(found["class_logits"], found["boxes"], maker))

    def run(self, images: Float[Tensor, "B C H W"], valid: Bool[Tensor, "B H W"] | None = None) -> dict[str, Tensor]:
        """The outputs of the file, on the device of the images; image by image where the file takes one alone."""
        pixels = images.detach().float().cpu().numpy()
        marks = None if valid is None else valid.cpu().numpy()
        step = self.file.record.batch or max(len(pixels), 1)
        runs = [
            self.file(pixels[first : first + step], None if marks is None else marks[first : first + step])
            for first in range(0, len(pixels), step)
        ]
        joined = {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}
        return {name: torch.from_numpy(value).to(images.device) for name, value in joined.items()}


def use_exported(model: nn.Module, file: ExportedModel) -> None:
    """Let an exported file compute what backbone, neck and head of a model computed; their weights are dropped.

    Takes `MaskSegmentor`, `MaskDetector` and mmseg's segmentors of per-pixel heads.

    Raises:
        ValueError: the file holds full results, which run without a model, or another model's, or it was trained on
            images that were normalised otherwise.
    """
    if file.record.output != "logits":
        raise InvalidValueError(
            f"{file.path}: expected a file of logits, got one of full results, whose resizing, thresholds and counts "
            "are fixed. Export with --output logits, or run the file with its stand-alone script."
        )
    _check_outputs(model, file)
    _check_normalisation(model, file)
    shell = cast(Any, model)
    if hasattr(model, "graphs"):
        shell.graphs = ExportedNetwork(file)
    elif hasattr(model, "encode_decode"):
        network = ExportedNetwork(file)
        shell.encode_decode = lambda inputs, batch_img_metas=None: network.run(inputs)["scores"]
    else:
        raise InvalidValueError(
            f"{file.path}: expected a config whose model is a MaskSegmentor, a MaskDetector or a "
            "segmentor of mmseg, got "
            f"{type(model).__name__}. Take the config that the file was exported with."
        )
    shell.loss = lambda *_, **__: _refuse_training(file)
    for name in ("backbone", "neck", "decode_head", "auxiliary_head"):
        part = getattr(model, name, None)
        for module in part.modules() if isinstance(part, nn.Module) else ():
            module._parameters.clear()
            module._buffers.clear()


def _check_outputs(model: nn.Module, file: ExportedModel) -> None:
    """Refuse the file of a mask classifier for a segmentor of per-pixel scores, and the other way round."""
    outputs = set(file.outputs)
    if hasattr(model, "graphs"):
        fits = "class_logits" in outputs and not outputs.isdisjoint(("mask_logits", "boxes"))
        expected = "class_logits with mask_logits, boxes or both"
    else:
        fits, expected = "scores" in outputs or not hasattr(model, "encode_decode"), "scores"
    if not fits:
        raise InvalidValueError(
            f"{file.path}: expected the outputs {expected} for a {type(model).__name__}, got "
            f"{', '.join(file.outputs)}. Take the config that the file was exported with; it is inside the file."
        )


def _check_normalisation(model: nn.Module, file: ExportedModel) -> None:
    """Refuse a config whose images are not those that the file was exported for; results would be silently worse."""
    expected, found = Normalisation.of(file.record), Normalisation.of_model(model, channels=len(file.record.mean))
    names = ("mean", "std", "to_rgb")
    differing = [name for name in names if not _is_close(getattr(expected, name), getattr(found, name))]
    if expected.mean and differing:
        raise InvalidValueError(
            f"model.data_preprocessor: expected the normalisation of {file.path}, "
            f"{', '.join(f'{name}={getattr(expected, name)}' for name in differing)}, got "
            f"{', '.join(f'{name}={getattr(found, name)}' for name in differing)}. Take the config that the file was "
            "exported with; it is inside the file."
        )


def _is_close(one: tuple[float, ...] | bool, other: tuple[float, ...] | bool) -> bool:
    return np.shape(one) == np.shape(other) and np.allclose(one, other)


def _refuse_training(file: ExportedModel) -> NoReturn:
    raise InvalidValueError(
        f"{file.path}: expected a test or a prediction, got a training run; exported files have no "
        "gradients. Train the "
        "checkpoint that it was exported from."
    )
