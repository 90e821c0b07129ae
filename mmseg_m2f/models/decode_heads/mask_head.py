"""The one head of all mask classifiers: pixel decoder, query decoder, criterion (arXiv 2107.06278, section 3)."""

import warnings
from collections.abc import Sequence
from inspect import signature

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmseg_m2f.checkpoints.openmmlab import adopt_head_keys
from mmseg_m2f.core.targets import stack_targets
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import (
    FeatureSpec,
    MaskTarget,
    NeedsExtraLoss,
    Prediction,
    TargetBatch,
    TrainingPredictions,
    TrainingQueryDecoder,
)


@MODELS.register_module()
class MaskHead(nn.Module):
    """Turns backbone maps into mask predictions and, with targets, into losses.

    Checkpoints of mmseg's and mmdet's Mask2Former and MaskFormer heads load as they are.

    Args:
        num_classes: K.
        pixel_decoder: config of a `PixelDecoder`; None for a `BackboneQueryDecoder`.
        query_decoder: config of a `QueryDecoder`, or of a `BackboneQueryDecoder` without pixel decoder.
        criterion: config of a `Criterion`; a head without one only predicts.
        extra_losses: configs of losses of the backbone's output (`ExtraLoss`), for example `TokenEdgeLoss`.
        feature_loss: former name of `extra_losses`, for one loss.
        deep_supervision: train all layers that predict, not just the last one; decoders that refine boxes always do.
        feature_spec: channels and strides of the backbone's maps; the shell passes it.
        replace_classifier: accept checkpoints with another number of classes; the class layer then keeps its
            initial weights, to be trained on the new classes. Otherwise such a checkpoint raises a ValueError.

    Raises:
        ValueError: the query decoder needs a pixel decoder and there is none, or the other way round.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        pixel_decoder: ConfigDict | dict | None,
        query_decoder: ConfigDict | dict,
        criterion: ConfigDict | dict | None = None,
        extra_losses: Sequence[ConfigDict | dict] = (),
        feature_loss: ConfigDict | dict | None = None,
        deep_supervision: bool = True,
        feature_spec: FeatureSpec,
        replace_classifier: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.deep_supervision = deep_supervision
        self.replace_classifier = replace_classifier
        given = dict(feature_spec=feature_spec)
        self.pixel_decoder = None if pixel_decoder is None else MODELS.build(pixel_decoder, default_args=given)
        if self.pixel_decoder is not None:
            given = dict(pixel_spec=self.pixel_decoder.spec)
        _check_query_decoder(query_decoder, reads=next(iter(given)))
        self.query_decoder = MODELS.build(query_decoder, default_args=dict(num_classes=num_classes, **given))
        if not deep_supervision and isinstance(self.query_decoder, TrainingQueryDecoder):
            raise InvalidValueError(
                f"decode_head.deep_supervision: expected True for {type(self.query_decoder).__name__}, whose layers "
                "refine each other's boxes, got False. Leave it out."
            )
        self.criterion = None if criterion is None else MODELS.build(criterion)
        self._check_class_loss()
        if feature_loss is not None:
            warnings.warn(
                "decode_head.feature_loss=LOSS is now decode_head.extra_losses=[LOSS]; the old name goes in the next "
                "minor release.",
                FutureWarning,
                stacklevel=2,
            )
            extra_losses = [*extra_losses, feature_loss]
        self.extra_losses = nn.ModuleList(MODELS.build(loss) for loss in extra_losses)
        self._shortened: dict[str, int] = {}
        self.register_load_state_dict_pre_hook(adopt_head_keys)
        self.register_load_state_dict_pre_hook(_check_class_layer)

    def _check_class_loss(self) -> None:
        """Raise where the class loss expects another number of outputs than the query decoder has."""
        loss = getattr(self.criterion, "loss_cls", None)
        others = getattr(loss, "num_other_outputs", None)
        if others is None or (others == 0) == (self.class_activation == "sigmoid"):
            return
        wanted = "ClassLoss" if self.class_activation == "softmax" else "ClassFocalLoss"
        raise InvalidValueError(
            f"decode_head.criterion.loss_cls: expected a loss for the {self.class_activation} of "
            f"{type(self.query_decoder).__name__}, such as mmseg_m2f.{wanted}, got {type(loss).__name__}. Change the "
            "loss, or class_activation of the query decoder where it has one."
        )

    @property
    def reads_boxes(self) -> bool:
        """Whether training needs boxes in the targets."""
        if self.criterion is None:
            return False
        return bool(self.criterion.box_losses) or isinstance(self.query_decoder, TrainingQueryDecoder)

    @property
    def box_frame(self) -> str:
        """What boxes are fractions of, in targets and predictions: the "image", or its padded "canvas"."""
        return getattr(self.query_decoder, "box_frame", "image")

    @property
    def class_activation(self) -> str:
        """Whether class logits become probabilities by a "softmax", with "no object" last, or by a "sigmoid" each."""
        return getattr(self.query_decoder, "class_activation", "softmax")

    def shorten(self, *, layers: object = None, queries: object = None) -> None:
        """Let results (`last_only`) come from the first decoder layers and from fewer queries.

        Weights and training stay as they are.

        Args:
            layers: how many decoder layers run, from the first; None is all.
            queries: how many of the Q queries are taken; None is all.

        Raises:
            ValueError: the query decoder cannot be shortened so, or has fewer layers or queries.
        """
        shortened, most = {}, self.dial_range()
        for key, wanted in dict(layers=layers, queries=queries).items():
            if wanted is None:
                continue
            kind = type(self.query_decoder).__name__
            if key not in most:
                raise InvalidValueError(
                    f"model.test_cfg.{key}: expected None, as the {key} of {kind} cannot be chosen when it predicts, "
                    f"got {wanted}. MaskedAttentionDecoder takes layers and queries, AnchorMaskDecoder and DETR's "
                    "decoders take layers."
                )
            if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= most[key]:
                raise InvalidValueError(
                    f"model.test_cfg.{key}: expected a whole number from 1 to {most[key]}, which {kind} has, got "
                    f"{wanted!r}."
                )
            if wanted < most[key]:
                shortened[f"num_{key}"] = wanted
        self._shortened = shortened

    def dial_range(self) -> dict[str, int]:
        """How many `layers` and `queries` there are, of those that `shorten` can leave out."""
        parameters = signature(self.query_decoder.forward).parameters
        most = {}
        if "num_layers" in parameters:
            most["layers"] = len(self.query_decoder.transformer_decoder.layers)
        if "num_queries" in parameters:
            most["queries"] = self.query_decoder.query_feat.num_embeddings
        return most

    def graph_state(self) -> tuple[tuple[str, int], ...]:
        """What results depend on besides weights and inputs."""
        return tuple(self._shortened.items())

    def forward(
        self,
        features: Sequence[Tensor],
        valid: Bool[Tensor, "B H W"] | None = None,
        *,
        last_only: bool = False,
    ) -> list[Prediction]:
        """One prediction per supervised layer, the result last; with `last_only`, the result alone.

        Args:
            features: the backbone's maps, fine to coarse.
            valid: True for pixels of the image, False for padding; None without padding, or to treat it as image.
        """
        if self.pixel_decoder is None:
            return self.query_decoder(features, last_only=last_only)
        pixel_features = self.pixel_decoder(features, self._valid_cells(features, valid))
        shortened = self._shortened if last_only else {}
        return self.query_decoder(pixel_features, last_only=last_only, **shortened)

    @staticmethod
    def _valid_cells(features: Sequence[Tensor], valid: Bool[Tensor, "B _ _"] | None) -> Bool[Tensor, "B _ _"] | None:
        """The cells of the coarsest map that lie on the image."""
        if valid is None:
            return None
        return F.interpolate(valid.unsqueeze(1).float(), features[-1].shape[-2:], mode="nearest").squeeze(1).bool()

    def loss(
        self,
        features: Sequence[Tensor],
        targets: TargetBatch | Sequence[MaskTarget],
        valid: Bool[Tensor, "B H W"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Losses of all supervised layers.

        Args:
            features, valid: see `forward`.
            targets: of each image, on the padded canvas.
        """
        return self.losses_of(self.predict_for_training(features, targets, valid), features, targets)

    def predict_for_training(
        self,
        features: Sequence[Tensor],
        targets: TargetBatch | Sequence[MaskTarget],
        valid: Bool[Tensor, "B H W"] | None = None,
    ) -> list[Prediction] | TrainingPredictions:
        """What `losses_of` takes: all layers, and what else the query decoder is trained on.

        Args:
            features, valid: see `forward`.
            targets: of each image; only a `TrainingQueryDecoder` reads them.
        """
        if not isinstance(self.query_decoder, TrainingQueryDecoder) or self.pixel_decoder is None:
            return self(features, valid)
        pixel_features = self.pixel_decoder(features, self._valid_cells(features, valid))
        return self.query_decoder.predict_for_training(pixel_features, stack_targets(targets))

    def losses_of(
        self,
        predictions: list[Prediction] | TrainingPredictions,
        features: Sequence[Tensor] | None,
        targets: TargetBatch | Sequence[MaskTarget],
    ) -> dict[str, Float[Tensor, ""]]:
        """Losses of the predictions of all supervised layers.

        Args:
            features: see `forward`; only `extra_losses` need them.
            targets: of each image, on the padded canvas.
        """
        if self.criterion is None:
            raise InvalidValueError("decode_head.criterion is None: this head cannot be trained. Give it a criterion.")
        if isinstance(features, NeedsExtraLoss):
            features.check_extra_losses(list(self.extra_losses))
        if not self.deep_supervision and not isinstance(predictions, TrainingPredictions):
            predictions = predictions[-1:]
        losses = self.criterion(predictions, targets)
        for extra_loss in self.extra_losses:
            losses |= extra_loss(features, targets)
        return losses

    @torch.no_grad()
    def predict(self, features: Sequence[Tensor], valid: Bool[Tensor, "B H W"] | None = None) -> Prediction:
        """The last layer's prediction."""
        return self(features, valid, last_only=True)[-1]


def _check_query_decoder(query_decoder: ConfigDict | dict, *, reads: str) -> None:
    """Refuse a decoder that is not built with `reads` ("pixel_spec" behind a pixel decoder, else "feature_spec")."""
    num_queries = query_decoder.get("num_queries", 1)
    if isinstance(num_queries, bool) or not isinstance(num_queries, int) or num_queries < 1:
        raise InvalidValueError(
            f"decode_head.query_decoder.num_queries: expected a whole number of at least 1, got {num_queries!r}."
        )
    found = MODELS.get(query_decoder["type"]) if isinstance(query_decoder["type"], str) else query_decoder["type"]
    if found is None or reads in signature(found).parameters:
        return
    name = found.__name__
    if reads == "pixel_spec":
        raise InvalidValueError(
            f"decode_head.query_decoder ({name}): expected a decoder of pixel features, got one that reads the "
            "backbone itself. Set decode_head.pixel_decoder=None."
        )
    raise InvalidValueError(
        f"decode_head.query_decoder ({name}): expected a decoder that reads the backbone itself, because "
        "decode_head.pixel_decoder is None, got one of pixel features. Set decode_head.pixel_decoder, for example "
        "dict(type='mmseg_m2f.DeformablePixelDecoder')."
    )


def _check_class_layer(head: MaskHead, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Refuse a class layer of another size, or keep the initial one with `replace_classifier`."""
    name = f"{prefix}query_decoder.cls_embed"
    stored = state_dict.get(f"{name}.weight")
    if stored is None or len(stored) == len(head.query_decoder.cls_embed.weight):
        return
    num_others = len(head.query_decoder.cls_embed.weight) - head.num_classes  # "no object", if it has an output
    num_stored = len(stored) - num_others
    if not head.replace_classifier:
        raise InvalidValueError(
            f"The checkpoint's class layer ({name}) has {num_stored} classes, but decode_head.num_classes is "
            f"{head.num_classes}. Set num_classes={num_stored} to use the checkpoint as it is, or "
            "decode_head.replace_classifier=True to fine-tune it on the new classes."
        )
    for part, parameter in head.query_decoder.cls_embed.named_parameters():
        state_dict[f"{name}.{part}"] = parameter.detach().clone()
