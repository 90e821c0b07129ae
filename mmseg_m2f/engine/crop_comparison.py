"""Whether validation images are much larger or more crowded than the crops that a model is trained on."""

from collections.abc import Mapping, Sequence

from mmengine.structures import BaseDataElement
from torch import Tensor

_MANY = 0.1  # of the validation images
_MUCH = 2  # times the pixels of the largest crop, or its objects


class CropComparison:
    """Sizes and numbers of objects of training crops and of validation images.

    Queries learn how many objects a crop holds and where they lie; in images that are much larger or hold many more,
    they miss most of them. Windows of the size of the crops are the remedy.
    """

    def __init__(self) -> None:
        self._crop = (0, 0)
        self._most_in_crop = 0
        self._images: list[tuple[int, int]] = []
        self._objects: list[int] = []

    def note_crops(self, batch: object) -> None:
        """Take a training batch in, as the loader gives it; anything else than images and samples is passed over."""
        if not isinstance(batch, Mapping):
            return
        for image in batch.get("inputs", ()):
            if isinstance(image, Tensor) and image.ndim == 3:
                height, width = image.shape[-2:]
                self._crop = max(self._crop, (height, width), key=lambda size: size[0] * size[1])
        for sample in batch.get("data_samples", ()):
            self._most_in_crop = max(self._most_in_crop, _num_objects(sample) or 0)

    def forget_images(self) -> None:
        """Begin a validation."""
        self._images, self._objects = [], []

    def note_images(self, samples: Sequence) -> None:
        """Take validation samples in."""
        for sample in samples:
            if isinstance(sample, BaseDataElement) and "img_shape" in sample.metainfo:
                height, width = sample.metainfo["img_shape"][:2]
                self._images.append((int(height), int(width)))
            if (count := _num_objects(sample)) is not None:
                self._objects.append(count)

    def advice(self) -> str | None:
        """What to do about it; None where images are like crops, or nothing was noted."""
        height, width = self._crop
        if not height or not self._images:
            return None
        larger = sum(h * w > _MUCH * height * width for h, w in self._images)
        crowded = sum(count > _MUCH * self._most_in_crop for count in self._objects) if self._most_in_crop else 0
        parts = []
        if larger >= max(_MANY * len(self._images), 1):
            parts.append(f"{larger} are more than {_MUCH} times as large as the training crops ({height} x {width})")
        if crowded >= max(_MANY * len(self._objects), 1):
            parts.append(
                f"{crowded} hold more than {_MUCH} times as many objects as any of them ({self._most_in_crop})"
            )
        if not parts:
            return None
        size = height if height == width else f"{height},{width}"
        return (
            f"Of {len(self._images)} validation images {' and '.join(parts)}: the model may miss most objects there. "
            f"Try windows of the size of the crops: --cfg-options window_size={size}"
        )


def _num_objects(sample: object) -> int | None:
    """True objects of a sample; None where it does not tell."""
    if not isinstance(sample, BaseDataElement):
        return None
    if "gt_instances" in sample:
        return len(sample.gt_instances)
    labels = sample.metainfo.get("segment_labels")
    return None if labels is None else len(labels)
