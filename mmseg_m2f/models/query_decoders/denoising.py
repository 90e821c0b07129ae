"""Noisy copies of the segments as further queries in training (DN-DETR, arXiv 2203.01305, section 4)."""

import logging
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from mmengine.logging import print_log
from torch import Tensor, nn

from mmseg_m2f.core.boxes import inverse_sigmoid
from mmseg_m2f.core.targets import required_boxes
from mmseg_m2f.core.transfer import upload
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.structures import Assignment, TargetBatch


class NoisySegments(NamedTuple):
    """D slots of noisy copies.

    Slot `group · S + k` of an image is a copy of its segment k, where S is the largest number of segments of an image;
    slots of images with fewer segments are padding: contents of 0, boxes in the middle.

    Attributes:
        content, boxes: of the slots.
        groups: copies of each segment.
        pairs: image, slot and segment of each copy, ordered by image; on the host.
        num_segments: of each image; on the host.
    """

    content: Float[Tensor, "B D C"]
    boxes: Float[Tensor, "B D 4"]
    groups: int
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray]
    num_segments: list[int]

    def may_attend(self, num_queries: int) -> Bool[Tensor, "N N"]:
        """Who sees whom in the N = D + Q slots and queries: everyone the queries, and a slot its own group."""
        num_slots = self.content.shape[1]
        numbers = torch.arange(num_slots + num_queries, device=self.content.device)
        group = numbers // max(num_slots // max(self.groups, 1), 1)
        same_group = (group[:, None] == group) & (numbers[:, None] < num_slots)
        return same_group | (numbers >= num_slots)

    def assignment(self, num_layers: int) -> Assignment:
        """Slots and segments of all layers; costs one upload."""
        images, slots, segments = self.pairs
        copies = [count * self.groups for count in self.num_segments]
        layers = np.concatenate([np.repeat(np.arange(num_layers), count) for count in copies])
        firsts = np.cumsum([0, *copies])
        order = np.concatenate(
            [np.tile(np.arange(first, first + count), num_layers) for first, count in zip(firsts, copies, strict=False)]
        )
        columns = np.stack([layers, images[order], slots[order], segments[order]]).astype(np.int64)
        uploaded = upload(torch.from_numpy(columns), self.content.device)
        counts = [[count] * num_layers for count in copies]
        return Assignment(uploaded[0], uploaded[1], uploaded[2], uploaded[3], counts)


class DenoisingQueries(nn.Module):
    """Makes noisy copies of the segments of a batch: as many of each as `num_queries` slots hold.

    There are none where no image has a segment, and none where an image has more segments than slots. Labels are noisy
    and boxes are; masks are not.

    Args:
        num_classes: K.
        channels: width of the queries.
        num_queries: most slots D.
        label_noise: probability of a label that is drawn from all classes.
        box_noise: a side is changed by up to this fraction of it, a centre by half of that.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        *,
        num_queries: int = 100,
        label_noise: float = 0.2,
        box_noise: float = 0.4,
    ) -> None:
        super().__init__()
        if num_queries < 1 or not 0 <= label_noise <= 1 or box_noise < 0:
            raise InvalidValueError(
                "DenoisingQueries: expected num_queries of at least 1, label_noise in [0, 1] and box_noise of at least "
                f"0, got {num_queries}, {label_noise} and {box_noise}. denoising=None trains without noisy copies."
            )
        self.num_queries, self.label_noise, self.box_noise = num_queries, label_noise, box_noise
        self.label_embed = nn.Embedding(num_classes, channels)
        self._warned = False

    def forward(self, targets: TargetBatch) -> NoisySegments:
        """The copies for this step.

        Raises:
            ValueError: the targets have no boxes.
        """
        counts = list(targets.num_segments)
        most = max(counts)
        groups = self.num_queries // most if most else 0
        if most > self.num_queries and not self._warned:
            self._warned = True
            name = targets.names[counts.index(most)] or "An image"
            print_log(
                f"{name} has {most} segments, but there are only {self.num_queries} slots for noisy copies: its batch "
                "is trained without copies (dn_loss_* are 0; this warning appears once). Raise "
                f"decode_head.query_decoder.denoising.num_queries to at least {most}.",
                logger="current",
                level=logging.WARNING,
            )
        pairs = _pairs(counts, most, groups)
        boxes = required_boxes(targets)[:, :most].repeat(1, groups, 1)
        labels = targets.labels[:, :most].repeat(1, groups)
        is_copy = self._marks(pairs, labels)

        changed = torch.rand(labels.shape, device=labels.device) < self.label_noise
        labels = torch.randint_like(labels, self.label_embed.num_embeddings).where(changed, labels)
        content = self.label_embed(labels) * is_copy
        reach = torch.cat([boxes[..., 2:] / 2, boxes[..., 2:]], -1) * self.box_noise
        noisy = boxes + (2 * torch.rand_like(boxes) - 1) * reach
        noisy = inverse_sigmoid(noisy).where(is_copy, 0).sigmoid()
        return NoisySegments(content, noisy, groups, pairs, counts)

    @staticmethod
    def _marks(pairs: tuple[np.ndarray, np.ndarray, np.ndarray], labels: Tensor) -> Bool[Tensor, "B D 1"]:
        """Which slots hold a copy."""
        images, slots, _ = pairs
        marks = torch.zeros(labels.shape, dtype=torch.bool)
        marks[torch.from_numpy(images), torch.from_numpy(slots)] = True
        return upload(marks, labels.device).unsqueeze(-1)


def _pairs(counts: list[int], most: int, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, slot and segment of each copy."""
    group, segment = np.divmod(np.arange(groups * most), max(most, 1))
    filled = [segment < count for count in counts]
    images = np.concatenate([np.full(mask.sum(), image) for image, mask in enumerate(filled)])
    slots = np.concatenate([(group * most + segment)[mask] for mask in filled])
    return images, slots, np.concatenate([segment[mask] for mask in filled])
