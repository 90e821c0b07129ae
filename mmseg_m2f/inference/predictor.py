"""A config and a checkpoint as one call: image in, prediction out."""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from mmseg_m2f.config.channels import channels_in_use
from mmseg_m2f.datasets.band_files import check_bands
from mmseg_m2f.datasets.stored_pixels import check_num_pixels
from mmseg_m2f.engine.trained_model import find_trained, load_trained, test_transforms
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.inference.image_streams import NamedImage, Source, open_sources
from mmseg_m2f.models.backbones import folding
from mmseg_m2f.predictions import ImageResult, read_result
from mmseg_m2f.visualization.bands import shown_channels

_READ_AHEAD = 4  # batches, in which images of one size are looked for


class StreamedResult(NamedTuple):
    """One image of a stream."""

    name: str
    """Its path; `VIDEO#FRAME` for a frame, `#NUMBER` for an array, counted from 0."""
    pixels: NDArray
    """As it was read: BGR H W 3 unless option `channels` is set."""
    result: ImageResult


class Predictor:
    """What a trained segmentor or detector says about single images.

    The images go through the test pipeline of the config, without its annotations, one at a time; a prediction
    depends on the pixels alone. The names of the classes are the config's or its dataset's, else those of the data that
    the checkpoint was trained on, else those in the dataset's annotation file.

    Args:
        config: The file of a config, or a loaded config; or what holds config and weights: an exported file
            (`tools/export.py`), a published folder (`tools/publish.py`), or such a repository (`hf://OWNER/NAME`).
        checkpoint: Weights to load; without them the model keeps its random initial ones.
        device: Where the model runs; the GPU if there is one, unless given.
        fold_norms: Multiply the batch norms of the backbone into its convolutions, which saves an operator for each.
            Results are the same up to rounding; the model can no longer be trained, and its weights have other names.

    Attributes:
        classes: Names of the K classes.
        palette: K RGB triples.
        category_ids: K numbers or texts of the classes in the data set's files, or else their indices.
        num_channels: Of the images, where option `channels` is set; None for BGR.
        shown: The channels that pictures show as red, green and blue, or one; None for BGR.

    Raises:
        FileNotFoundError: The config or the checkpoint is missing.
        ValueError: The checkpoint is truncated, unsafe or of another model, nothing names the classes, or the head
            predicts another number of classes; or `fold_norms` would change what the backbone gives.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | Config,
        checkpoint: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device | None = None,
        fold_norms: bool = False,
    ) -> None:
        cfg, weights = find_trained(config, checkpoint)
        found = load_trained(cfg, weights)
        self.model: nn.Module = found.model
        self.classes, self.palette, self.category_ids = found.classes, found.palette, found.category_ids
        self._load_image, self._transforms = test_transforms(cfg, found.dataset)
        self.num_channels = channels_in_use(cfg)
        self.shown = shown_channels(self.model)
        kept = [each for each in self._transforms.transforms if "Resize" not in type(each).__name__]
        self._transforms_of_parts = Compose(kept)
        self.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        if fold_norms:
            folding.fold_norms(self.model.get_submodule("backbone"))

    @torch.no_grad()
    def __call__(self, image: str | os.PathLike[str] | NDArray) -> ImageResult:
        """What the model predicts for an image, in its own size: label map, panoptic map, objects.

        Args:
            image: A file, or a BGR array H W 3 (uint8); with option `channels` an array H W C of real numbers, in the
                values and the order of channels of the training images.

        Raises:
            FileNotFoundError: The file is missing.
            ValueError: The file cannot be decoded, the array is no such image, or the model predicts nothing.
        """
        pixels = self._checked(image if isinstance(image, np.ndarray) else self.read(image))
        return self._predict(pixels, self._transforms, size=(pixels.shape[0], pixels.shape[1]))

    def stream(self, source: Source, *, batch_size: int = 1, progress: bool = False) -> Iterator[StreamedResult]:
        """What the model predicts for many images, one after the other in their order.

        Images are read when their turn comes, some batches ahead; those of one size go through the model together.

        Args:
            source: An image file, a folder (with its subfolders), a video file that OpenCV decodes, an array H W C or
                N H W C as `__call__` takes it, or a list or generator of these.
            batch_size: How many images of one size go through the model at once.
            progress: Show a bar.

        Raises:
            FileNotFoundError: At once: a path leads nowhere, or a folder holds no images.
            ValueError: At once: a video cannot be opened, an array has other axes, or `batch_size` is below 1. Later:
                as `__call__` does.
        """
        if batch_size < 1:
            raise InvalidValueError(f"Predictor.stream: expected a batch_size of at least 1, got {batch_size}.")
        opened = open_sources(source, self.read)
        bar = tqdm(opened.images, total=opened.length, unit="image", disable=not progress)
        return self._stream(iter(bar), batch_size)

    def _stream(self, images: Iterator[NamedImage], batch_size: int) -> Iterator[StreamedResult]:
        while ahead := list(islice(images, batch_size * _READ_AHEAD if batch_size > 1 else 1)):
            pixels = [self._checked(image.pixels) for image in ahead]
            results = self._predict_all(pixels, batch_size)
            for image, result in zip(ahead, results, strict=True):
                yield StreamedResult(image.name, image.pixels, result)

    @torch.no_grad()
    def _predict_all(self, images: Sequence[NDArray], batch_size: int) -> list[ImageResult]:
        by_size: dict[tuple[int, ...], list[int]] = {}
        for number, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(number)
        results: dict[int, ImageResult] = {}
        for numbers in by_size.values():
            for first in range(0, len(numbers), batch_size):
                chosen = numbers[first : first + batch_size]
                pixels = [images[number] for number in chosen]
                size = (pixels[0].shape[0], pixels[0].shape[1])
                results |= zip(chosen, self._predict_batch(pixels, self._transforms, size=size), strict=True)
        return [results[number] for number in range(len(images))]

    def _checked(self, pixels: NDArray) -> NDArray:
        """An image that the model takes."""
        if self.num_channels is not None:
            return check_bands(pixels, channels=self.num_channels, source="Predictor, image")
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
            raise InvalidValueError(
                f"Predictor: expected a BGR image H W 3 of uint8, got shape {pixels.shape} of {pixels.dtype}. "
                "Read files with cv2.imread, or flip the last axis of an RGB array."
            )
        return pixels

    @torch.no_grad()
    def predict_part(self, pixels: NDArray, size: tuple[int, int]) -> ImageResult:
        """What the model predicts for a window of an image, as it is: the pipeline's resizing is left out.

        Args:
            pixels: BGR H W 3; with option `channels` H W C, float32.
            size: height and width of the result.
        """
        return self._predict(pixels, self._transforms_of_parts, size=size)

    def _predict(self, pixels: NDArray, transforms: Compose, *, size: tuple[int, int]) -> ImageResult:
        return self._predict_batch([pixels], transforms, size=size)[0]

    def _predict_batch(
        self, images: Sequence[NDArray], transforms: Compose, *, size: tuple[int, int]
    ) -> list[ImageResult]:
        inputs = [
            transforms(dict(img=pixels, img_shape=pixels.shape[:2], ori_shape=size, seg_fields=[])) for pixels in images
        ]
        samples = self.model.test_step(pseudo_collate(inputs))  # type: ignore[operator]
        results = [read_result(sample) for sample in samples]
        found = [result for result in results if result is not None]
        if len(found) < len(samples):
            raise InvalidValueError(
                f"Predictor: expected 'pred_panoptic_seg', 'pred_instances' or 'pred_sem_seg' of "
                f"{type(self.model).__name__}, got {samples[0].keys()}. Choose a segmentor or a detector; a "
                "MaskDetector predicts what its test_cfg says."
            )
        return found

    def read(self, path: str | os.PathLike[str]) -> NDArray:
        """The image of a file as the config reads it: BGR H W 3, uint8; with option `channels` H W C, float32.

        Raises:
            FileNotFoundError: The file is missing.
            ValueError: It cannot be decoded, or has more pixels than Pillow takes (`check_num_pixels`).
        """
        check_num_pixels(path)
        return self._load_image(dict(img_path=os.fspath(path), seg_fields=[]))["img"]
