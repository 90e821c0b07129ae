"""Fits the temperatures of a checkpoint's confidences on held-out images (arXiv 1706.04599, section 4.2).

Every other image is fitted, the others tell what is gained, so that no figure is of images that were fitted.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmseg_m2f.config.data_paths import check_data_paths
from mmseg_m2f.config.finding import find_config
from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.nodes import leaf_datasets
from mmseg_m2f.config.options import Options
from mmseg_m2f.core.confidence import (
    LARGEST_TEMPERATURE,
    fit_class_temperature,
    fit_score_temperature,
    known_probs,
    temper_scores,
)
from mmseg_m2f.core.selection import class_votes
from mmseg_m2f.engine.split_loader import split_loader
from mmseg_m2f.engine.trained_model import load_trained
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.evaluation.confidence_groups import answer_figures, group_answers
from mmseg_m2f.evaluation.object_calibration import judge_confidences
from mmseg_m2f.evaluation.object_overlaps import read_objects
from mmseg_m2f.evaluation.sample_fields import check_sizes
from mmseg_m2f.evaluation.semantic_iou import check_labels, semantic_maps
from mmseg_m2f.files import replace_file
from mmseg_m2f.samples import sample_name

Split = Literal["val", "test"]
#: Keys of a data set's config that do not say which images it holds.
_NOT_IMAGES = {"pipeline", "test_mode", "lazy_init", "length", "metainfo", "serialize_data", "max_refetch"}


class PixelScores(NamedTuple):
    """Some labelled pixels of an image: class scores in [0, Q], and true classes."""

    scores: Float[np.ndarray, "N K"]
    truth: Int[np.ndarray, "N"]


class ObjectScores(NamedTuple):
    """The detections of an image that count: scores, and whether each is right (IoU of 0.5 or more)."""

    scores: Float[np.ndarray, "N"]
    hits: Bool[np.ndarray, "N"]


@dataclass(frozen=True)
class FittedTemperature:
    """One temperature of `model.test_cfg`, and what it changes.

    Attributes:
        key: `temperature` (pixels) or `score_temperature` (objects).
        value: the temperature.
        num_fitted: of how many pixels or objects.
        before: `ECE`, `AURC`, `accuracy` and `confidence` of images that were not fitted, at temperature 1.
        after: the same at the fitted one.
    """

    key: str
    value: float
    num_fitted: int
    before: Mapping[str, float]
    after: Mapping[str, float]


@dataclass(frozen=True)
class ConfidenceFit:
    """The temperatures of a checkpoint.

    Attributes:
        fits: one for label maps, one for objects, as far as the model gives them.
        num_images: how many were read: half of them fitted, the others measured.
        split: of which loader.
    """

    fits: Sequence[FittedTemperature]
    num_images: int
    split: Split

    def options(self) -> str:
        """What `--cfg-options` takes."""
        return " ".join(f"model.test_cfg.{fit.key}={fit.value:.4f}" for fit in self.fits)

    def text(self) -> str:
        """A table of what the temperatures change."""
        lines = ["| test_cfg | fitted | ECE | AURC | accuracy | confidence |", "|---|---|---|---|---|---|"]
        for fit in self.fits:
            for value, figures in ((1.0, fit.before), (fit.value, fit.after)):
                cells = " | ".join(f"{figures[name]:.4f}" for name in ("ECE", "AURC", "accuracy", "confidence"))
                lines.append(f"| {fit.key}={value:.4f} | {fit.num_fitted} | {cells} |")
        return "\n".join(lines)

    def save(self, folder: Path, *, config: str) -> None:
        """Write `calibration.json`, and `calibrated.py`, a leaf on top of the config with the temperatures."""
        report = dict(split=self.split, images=self.num_images, fits=[asdict(fit) for fit in self.fits])
        replace_file(folder / "calibration.json", (json.dumps(report, indent=2) + "\n").encode())
        base = str(find_config(config).resolve())
        values = ", ".join(f"{fit.key}={fit.value:.4f}" for fit in self.fits)
        replace_file(folder / "calibrated.py", f"_base_ = [{base!r}]\nmodel = dict(test_cfg=dict({values}))\n".encode())


def fit_confidence(
    config: str,
    checkpoint: str,
    options: Options | None = None,
    *,
    split: Split = "val",
    num_images: int = 200,
    pixels_per_image: int = 1000,
    device: str | None = None,
) -> ConfidenceFit:
    """Fit what the model gives: a temperature for label maps, one for the scores of objects, or both.

    Args:
        split: whose images are held out.
        num_images: read the first of them, at most.
        pixels_per_image: labelled pixels at random places, the same in every run.
        device: as torch names it; None takes the GPU if there is one.

    Raises:
        FileNotFoundError: config, checkpoint or data are missing.
        ValueError: no held-out images, those of training, fewer than two, or a model without such scores.
    """
    if num_images < 2 or pixels_per_image < 1:
        raise InvalidValueError(
            f"calibrate: expected at least 2 images, one to fit and one to measure, and 1 pixel of each, got --images "
            f"{num_images} --pixels {pixels_per_image}."
        )
    cfg = load_config(config, options)
    _check_held_out(cfg, split)
    model = load_trained(cfg, checkpoint).model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    reader = _Reader(model, pixels_per_image=pixels_per_image)
    count = 0
    for batch in split_loader(cfg, split):
        count += reader.read(batch, at_most=num_images - count)
        if count >= num_images:
            break
    if count < 2:
        raise InvalidValueError(
            f"calibrate: expected at least 2 images of {split}_dataloader, one to fit and one to measure, got {count}. "
            "Give the set more images."
        )
    fits = []
    if reader.with_pixels:
        fits.append(_fit_pixels(reader.pixels))
    if reader.with_objects:
        fits.append(_fit_objects(reader.objects))
    for fit in fits:
        if not 1.02 / LARGEST_TEMPERATURE < fit.value < LARGEST_TEMPERATURE / 1.02:
            warnings.warn(
                f"calibrate: {fit.key} is {fit.value:.4g}, the end of the range: the {fit.num_fitted} fitted pixels or "
                "objects do not bound it (all are right, or confidence tells nothing). Raise --images.",
                stacklevel=2,
            )
    return ConfidenceFit(fits, count, split)


class _Reader:
    """Collects scores and truth of images, one entry each."""

    def __init__(self, model: nn.Module, *, pixels_per_image: int) -> None:
        self._model: Any = model
        self._pixels_per_image = pixels_per_image
        self._is_detector = hasattr(model, "is_thing")
        self._usual = cast(Any, getattr(model, "test_cfg", None) or {})
        if "temperature" not in self._usual:
            raise InvalidValueError(
                f"calibrate: expected a model of type MaskSegmentor or MaskDetector, which keep scores of mask "
                f"classification, got {type(model).__name__}. Choose a mask classifier."
            )
        self.with_pixels = not self._is_detector or bool(self._usual.semantic)
        self.with_objects = self._is_detector and bool(self._usual.instance)
        if not (self.with_pixels or self.with_objects):
            raise InvalidValueError(
                "calibrate: expected label maps or objects, whose confidence is calibrated, got a model.test_cfg that "
                "asks for panoptic maps alone. Set model.test_cfg.instance=True or semantic=True."
            )
        if self._is_detector and self.with_pixels and self._usual.mode == "slide":
            raise InvalidValueError(
                "calibrate: expected model.test_cfg.mode='whole', where a MaskDetector gives label maps, got 'slide'. "
                "Fit with mode='whole', or set semantic=False to fit objects alone."
            )
        self.pixels: list[PixelScores] = []
        self.objects: list[ObjectScores] = []
        self._generator = np.random.default_rng(0)

    @torch.no_grad()
    def read(self, batch: Mapping, *, at_most: int) -> int:
        """Add the first images of a batch, and say how many."""
        num_classes = self._model.decode_head.num_classes
        if self._is_detector:
            samples = self._predict(batch)[:at_most]
            if self.with_objects:
                self.objects += [_object_scores(sample, num_classes) for sample in samples]
            if self.with_pixels:
                maps = [semantic_maps(sample.to_dict(), where=_where(sample)) for sample in samples]
                queries = self._predict(batch, return_queries=True)[:at_most]
                for (_, truth), sample in zip(maps, queries, strict=True):
                    found = sample.pred_queries
                    votes = class_votes(found.class_probs, self._model.decode_head.class_activation)
                    scores = torch.einsum("qk,qhw->khw", votes, found.mask_probs)
                    self.pixels.append(self._pixel_scores(scores, truth, where=_where(sample)))
            return len(samples)
        samples = self._predict(batch, return_scores=True)[:at_most]
        for sample in samples:
            _, truth = semantic_maps(sample.to_dict(), where=_where(sample))
            self.pixels.append(self._pixel_scores(sample.seg_logits.data, truth, where=_where(sample)))
        return len(samples)

    def _predict(self, batch: Mapping, **changes: object) -> list[BaseDataElement]:
        self._model.test_cfg = {**self._usual, "temperature": None, **changes}
        try:
            return list(self._model.test_step(batch))
        finally:
            self._model.test_cfg = self._usual

    def _pixel_scores(self, scores: Float[Tensor, "K H W"], truth: Int[Tensor, "H W"], *, where: str) -> PixelScores:
        check_sizes(scores.shape[-2:], truth.shape, where=where)
        truth = truth.flatten().long().cpu()
        labelled = (truth != 255).nonzero()[:, 0].numpy()
        count = min(self._pixels_per_image, len(labelled))
        chosen = torch.from_numpy(self._generator.choice(labelled, count, replace=False).astype(np.int64))
        check_labels(truth[chosen], truth[chosen], num_classes=len(scores), ignore_index=255, where=where)
        some = scores.flatten(1)[:, chosen.to(scores.device)].T.float().cpu().numpy()
        return PixelScores(some, truth[chosen].numpy())


def _object_scores(sample: BaseDataElement, num_classes: int) -> ObjectScores:
    detected, true = read_objects(sample.to_dict(), num_classes, where=_where(sample))
    _, scores, hits = judge_confidences(detected, true, detected.scores)
    return ObjectScores(scores, hits)


def _fit_pixels(images: Sequence[PixelScores]) -> FittedTemperature:
    fitted, measured = (PixelScores(*map(np.concatenate, zip(*part, strict=True))) for part in _halves(images))
    temperature = fit_class_temperature(*fitted)
    labels = measured.scores.argmax(1)
    figures = []
    for value in (1.0, temperature):
        probs = known_probs(torch.from_numpy(measured.scores), value).numpy()
        confidences = np.take_along_axis(probs, labels[:, None], 1)[:, 0]
        figures.append(_figures(labels, confidences, labels == measured.truth, exact=False))
    return FittedTemperature("temperature", temperature, len(fitted.truth), *figures)


def _fit_objects(images: Sequence[ObjectScores]) -> FittedTemperature:
    fitted, measured = (ObjectScores(*map(np.concatenate, zip(*part, strict=True))) for part in _halves(images))
    temperature = fit_score_temperature(*fitted)
    figures = []
    for value in (1.0, temperature):
        confidences = temper_scores(torch.from_numpy(measured.scores), value).numpy()
        figures.append(_figures(np.zeros(len(confidences), int), confidences, measured.hits, exact=True))
    return FittedTemperature("score_temperature", temperature, len(fitted.scores), *figures)


def _figures(
    labels: Int[np.ndarray, "N"], confidences: Float[np.ndarray, "N"], hits: Bool[np.ndarray, "N"], *, exact: bool
) -> dict[str, float]:
    if not len(hits):
        raise InvalidValueError(
            "calibrate: expected pixels or objects in the images that are measured, got none. Raise --images."
        )
    return answer_figures(group_answers(labels, confidences, hits, exact=exact, where="calibrate"))


def _halves(images: Sequence) -> tuple[Sequence, Sequence]:
    return images[0::2], images[1::2]


def _where(sample: BaseDataElement) -> str:
    return f"calibrate, {sample_name(sample)}"


def _check_held_out(cfg: Config, split: Split) -> None:
    """Refuse a config without such a set, and one whose images are those of training."""
    if not cfg.get(f"{split}_dataloader"):
        raise InvalidValueError(
            f"calibrate: expected a {split}_dataloader, whose images the model has not seen, got none. Add a data set "
            "for validation, or choose --split."
        )
    check_data_paths(cfg, loops=(split,))
    trained_on = [_images(leaf) for _, leaf in leaf_datasets((cfg.get("train_dataloader") or {}).get("dataset"), "")]
    for path, leaf in leaf_datasets(cfg[f"{split}_dataloader"].get("dataset"), f"{split}_dataloader.dataset"):
        if _images(leaf) in trained_on:
            raise InvalidValueError(
                f"calibrate: expected images that the model has not seen, got those of training in {path}. A "
                "temperature fitted on them keeps the model overconfident. Choose --split, or name another set there."
            )


def _images(dataset: Mapping) -> dict:
    return {key: value for key, value in Config(dict(dataset)).to_dict().items() if key not in _NOT_IMAGES}
