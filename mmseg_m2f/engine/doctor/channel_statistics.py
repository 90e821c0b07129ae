"""Mean and standard deviation of the channels of a config's training images."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from tqdm import tqdm

from mmseg_m2f.config.channels import channels_in_use
from mmseg_m2f.engine.class_agreement import leaf_datasets
from mmseg_m2f.engine.doctor.facts import spread
from mmseg_m2f.errors import InvalidValueError

_BATCH = 64  # images handed to the threads at once: results of no more than that wait in memory


class ChannelStatistics(NamedTuple):
    """Of all pixels of some images; the arrays have a value for each channel."""

    num_images: int
    num_pixels: int
    mean: Float64[np.ndarray, " C"]
    squares: Float64[np.ndarray, " C"]
    """Sum of the squared deviations from the mean."""
    lowest: Float64[np.ndarray, " C"]
    highest: Float64[np.ndarray, " C"]

    @property
    def std(self) -> Float64[np.ndarray, " C"]:
        """Standard deviation over the pixels."""
        return np.sqrt(self.squares / self.num_pixels)

    def joined(self, other: "ChannelStatistics") -> "ChannelStatistics":
        """Of both sets of images (Chan, Golub and LeVeque 1979)."""
        total = self.num_pixels + other.num_pixels
        step = other.mean - self.mean
        return ChannelStatistics(
            self.num_images + other.num_images,
            total,
            self.mean + step * (other.num_pixels / total),
            self.squares + other.squares + step**2 * (self.num_pixels * other.num_pixels / total),
            np.minimum(self.lowest, other.lowest),
            np.maximum(self.highest, other.highest),
        )

    def text(self, cfg: Config) -> str:
        """A table, and the line for the config that normalises with them."""
        rows = [
            f"{index:>7} {mean:>12.6g} {std:>12.6g} {low:>12.6g} {high:>12.6g}"
            for index, (mean, std, low, high) in enumerate(
                zip(self.mean, self.std, self.lowest, self.highest, strict=True)
            )
        ]
        values = ", ".join(
            f"{name}=[{', '.join(f'{each:.6g}' for each in array)}]"
            for name, array in (("mean", self.mean), ("std", self.std))
        )
        count = channels_in_use(cfg)
        line = (
            f"model = dict(data_preprocessor=dict({values}))"
            if count is None
            else f"channels = dict(count={count}, {values})"
        )
        head = f"channel {'mean':>12} {'std':>12} {'lowest':>12} {'highest':>12}"
        title = f"{self.num_images} images of the training set, {self.num_pixels:,} pixels:"
        constant = [str(index) for index, each in enumerate(self.std) if each == 0]
        note = [f"Channel {', '.join(constant)} is constant: replace 0 in std by 1."] if constant else []
        return "\n".join([title, head, *rows, *note, line])


def channel_statistics(cfg: Config, *, samples: int | None = None, workers: int = 1) -> ChannelStatistics:
    """Statistics of the training images as they are loaded, before anything changes them; void pixels count too.

    Channels have the order of the preprocessor's mean: RGB where it turns BGR around.

    Args:
        samples: At most so many images, spread evenly; all if None.
        workers: Threads that read.

    Raises:
        FileNotFoundError, ValueError: An image cannot be read, or has other channels than the others.
    """
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmengine"):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    images = [(leaf, index) for leaf in leaf_datasets(dataset) for index in range(len(leaf))]  # type: ignore[arg-type]
    chosen = [images[index] for index in spread(len(images), samples)]
    preprocessor = cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor") or {}
    total: ChannelStatistics | None = None
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool, tqdm(total=len(chosen), unit="image") as bar:
        for first in range(0, len(chosen), _BATCH):
            for one in pool.map(lambda pair: _of_image(*pair), chosen[first : first + _BATCH]):
                total = one if total is None else _joined(total, one)
                bar.update()
    if total is None:
        raise InvalidValueError("train_dataloader.dataset: expected images, got none. Correct its folders.")
    return _turned(total) if preprocessor.get("bgr_to_rgb") else total


def _of_image(dataset: Any, index: int) -> ChannelStatistics:  # noqa: ANN401  (datasets of any package)
    results = dataset.get_data_info(index)
    for transform in dataset.pipeline.transforms:
        if "img" in results:
            break
        results = transform(results)
    return statistics_of(results["img"])


def statistics_of(image: np.ndarray) -> ChannelStatistics:
    """Of one image H W C."""
    pixels = image.reshape(-1, image.shape[-1] if image.ndim == 3 else 1).astype(np.float64)
    mean = pixels.mean(0)
    return ChannelStatistics(1, len(pixels), mean, ((pixels - mean) ** 2).sum(0), pixels.min(0), pixels.max(0))


def _joined(total: ChannelStatistics, one: ChannelStatistics) -> ChannelStatistics:
    if len(one.mean) != len(total.mean):
        raise InvalidValueError(
            f"train_dataloader.dataset: expected images of one number of channels, got {len(total.mean)} and "
            f"{len(one.mean)}. Set channels=NUMBER, which names the file at fault."
        )
    return total.joined(one)


def _turned(found: ChannelStatistics) -> ChannelStatistics:
    arrays: Sequence[np.ndarray] = [array[::-1] for array in found[2:]]
    return ChannelStatistics(found.num_images, found.num_pixels, *arrays)
