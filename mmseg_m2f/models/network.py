"""What both shells do with a backbone, a neck and a head: run them, through CUDA graphs if the config asks for it."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmseg_m2f.models.cuda_graphs import GraphedNetwork
from mmseg_m2f.models.decode_heads.mask_head import MaskHead
from mmseg_m2f.structures import NeedsExtraLoss, Prediction, TargetBatch, TrainingPredictions, TrainingQueryDecoder

if TYPE_CHECKING:

    class Shell(Protocol):
        """A model of a framework around a `MaskHead`."""

        decode_head: MaskHead
        graphs: GraphedNetwork | None

        def extract_feat(self, images: Float[Tensor, "B C H W"], /) -> Sequence[Tensor]:
            """Maps of backbone and neck, fine to coarse."""

else:  # at run time a protocol does not see submodules among the attributes of a model
    Shell = nn.Module


def lay_out(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """The same images, channels last in memory, as convolutions on a GPU want them; unchanged on a CPU."""
    return images if images.device.type == "cpu" else images.contiguous(memory_format=torch.channels_last)


def run_network(
    model: Shell, images: Float[Tensor, "B C H W"], valid: Bool[Tensor, "B H W"] | None = None
) -> tuple[list[Prediction], Sequence[Tensor] | None]:
    """Predictions of all layers; and what the backbone gave, where a loss of the head looks at it."""
    if model.graphs is None:
        return _all_layers(model, images, valid)
    assert isinstance(model, nn.Module)
    return model.graphs(model, partial(_all_layers, model), images, valid, kind="all layers")


def predict_for_training(
    model: Shell, images: Float[Tensor, "B C H W"], valid: Bool[Tensor, "B H W"] | None, targets: TargetBatch
) -> tuple[list[Prediction] | TrainingPredictions, Sequence[Tensor] | None]:
    """The same, and what else the query decoder is trained on.

    A decoder that reads the targets is not recorded as a CUDA graph: their number differs from batch to batch.
    """
    if not isinstance(model.decode_head.query_decoder, TrainingQueryDecoder):
        return run_network(model, images, valid)
    features = model.extract_feat(images)
    return model.decode_head.predict_for_training(features, targets, valid), _features_for_losses(model, features)


def last_prediction(
    model: Shell, images: Float[Tensor, "B C H W"], valid: Bool[Tensor, "B H W"] | None = None
) -> Prediction:
    """The prediction of the last layer; overwritten by the next call where `model.cuda_graphs` is set."""
    if model.graphs is None:
        return _last_layer(model, images, valid)
    assert isinstance(model, nn.Module)
    return model.graphs(model, partial(_last_layer, model), images, valid, kind="last layer")


def _all_layers(
    model: Shell, images: Float[Tensor, "B C H W"], valid: Bool[Tensor, "B H W"] | None
) -> tuple[list[Prediction], Sequence[Tensor] | None]:
    features = model.extract_feat(images)
    return model.decode_head(features, valid), _features_for_losses(model, features)


def _features_for_losses(model: Shell, features: Sequence[Tensor]) -> Sequence[Tensor] | None:
    needed = len(model.decode_head.extra_losses) > 0 or isinstance(features, NeedsExtraLoss)
    return features if needed else None


def _last_layer(model: Shell, images: Float[Tensor, "B C H W"], valid: Bool[Tensor, "B H W"] | None) -> Prediction:
    return model.decode_head.predict(model.extract_feat(images), valid)
