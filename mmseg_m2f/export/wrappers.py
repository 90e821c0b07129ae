"""A model as a function of tensors, without data samples, for exporters."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast
from unittest import mock

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmseg_m2f.models.query_decoders import encoder_mask, masked_attention
from mmseg_m2f.structures import TokenStream, predicted_boxes

#: Names of the outputs of `Logits` for a mask classifier, in their order.
RESULTS = ("class_logits", "boxes", "mask_logits")


class Logits(nn.Module):
    """The last layer of a model, before any post-processing, for images that are normalised and padded.

    Of mask classifiers: `class_logits` B Q K1, `boxes` B Q 4 and `mask_logits` B Q h w, as far as the model predicts
    them. Of per-pixel segmentors: `scores` B K H W at the size of the images.

    Args:
        model: `MaskSegmentor`, `MaskDetector` or a segmentor of mmseg, in evaluation mode.
        stages: also give what is computed on the way: `features_i` of the backbone, `mask_features`, and
            `attention_i`, the logits whose signs are the attention masks.
    """

    def __init__(self, model: nn.Module, *, stages: bool = False) -> None:
        super().__init__()
        self.model, self.stages = model, stages

    def forward(
        self, images: Float[Tensor, "B C H W"], valid: Bool[Tensor, "B H W"] | None = None
    ) -> dict[str, Tensor]:
        model = cast(Any, self.model)
        if not is_mask_classifier(model):
            size = images.shape[-2:]
            scores = model.encode_decode(images, [dict(img_shape=size, ori_shape=size, pad_shape=size)])
            return dict(scores=scores)
        features = model.extract_feat(images)
        with recorded_attention() as attention:
            prediction = model.decode_head(features, valid, last_only=True)[-1]
        found = dict(class_logits=prediction.class_logits)
        boxes = predicted_boxes(prediction)
        if boxes is not None:
            found["boxes"] = boxes
        if prediction.has_masks:
            found["mask_logits"] = prediction.mask_logits()
        if self.stages:
            maps = [features.tokens] if isinstance(features, TokenStream) else list(features)
            found |= {f"features_{index}": x for index, x in enumerate(maps)}
            if hasattr(prediction, "mask_features"):
                found["mask_features"] = prediction.mask_features
            found |= {f"attention_{index}": x for index, x in enumerate(attention)}
        return found


def is_mask_classifier(model: nn.Module) -> bool:
    """Whether this is one of our shells around a `MaskHead`."""
    return hasattr(model, "graphs")


@contextmanager
def recorded_attention() -> Iterator[list[Tensor]]:
    """The logits whose signs say where the queries of masked attention may attend, layer by layer."""
    seen: list[Tensor] = []
    inside, joint = masked_attention.attend_inside, encoder_mask.inside_logits

    def attend_inside(mask_logits: Tensor) -> Tensor:
        seen.append(mask_logits)
        return inside(mask_logits)

    def inside_logits(*arguments: Any) -> Tensor:  # noqa: ANN401
        seen.append(joint(*arguments))
        return seen[-1]

    with (
        mock.patch.object(masked_attention, "attend_inside", attend_inside),
        mock.patch.object(encoder_mask, "inside_logits", inside_logits),
    ):
        yield seen


def reads_valid(model: nn.Module, *, multiple: int = 1, channels: int = 3) -> bool:
    """Whether a file of the model needs the input `valid`; segmentors treat padding as image."""
    return hasattr(model, "is_thing") and depends_on_padding(model, multiple=multiple, channels=channels)


@torch.no_grad()
def depends_on_padding(model: nn.Module, *, multiple: int = 1, channels: int = 3) -> bool:
    """Whether logits depend on which pixels are marked as padding: asks the model, with an image half of padding."""
    if not is_mask_classifier(model):
        return True  # per-pixel heads cannot be told
    side = -(-128 // multiple) * multiple
    images = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(1, side, side, dtype=torch.bool)
    valid[:, :, side // 2 :] = False
    wrapper = Logits(model)
    whole, half = wrapper(images), wrapper(images, valid)
    return any(not torch.equal(whole[name], half[name]) for name in whole)


def size_multiple(model: nn.Module) -> int:
    """What the height and width of images must be multiples of: the patches of a backbone that takes no others."""
    return int(getattr(model.backbone, "size_multiple", 1))


def names_of(outputs: Sequence[str]) -> list[str]:
    """The outputs that a file keeps: those without the stages."""
    return [name for name in outputs if name in (*RESULTS, "scores")]
