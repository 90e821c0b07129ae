"""The one head of all mask classifiers: pixel decoder, query decoder, criterion (arXiv 2107.06278, section 3)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmseg_m2f.checkpoints.openmmlab import adopt_head_keys
from mmseg_m2f.models.backbones.shrunk_vit import PartialMaps
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import FeatureSpec, MaskTarget, Prediction, TargetBatch


@MODELS.register_module()
class MaskHead(nn.Module):
    """Turns backbone maps into mask predictions and, with targets, into losses.

    Checkpoints of mmseg's and mmdet's Mask2Former and MaskFormer heads load as they are.

    Args:
        num_classes: K.
        pixel_decoder: config of the part that gives mask features and levels; None for query decoders that look at the
            backbone's output itself, which are built with `feature_spec` instead of `pixel_spec`.
        query_decoder: config of the part that gives mask predictions.
        criterion: config of the losses; a head without one only predicts.
        feature_loss: config of a loss of what the backbone returns, beside the criterion; e.g. `TokenEdgeLoss`.
        content_loss: config of a loss of the queries' learnt content, beside the criterion; `ContentOrthogonalityLoss`.
        deep_supervision: train all layers that predict, not just the last one.
        feature_spec: what the backbone returns; the segmentor asks the backbone and passes it.
        replace_classifier: accept checkpoints with another number of classes; the class layer then keeps its
            fresh weights, to be trained on the new classes. Otherwise such a checkpoint raises a ValueError.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        pixel_decoder: ConfigDict | dict | None,
        query_decoder: ConfigDict | dict,
        criterion: ConfigDict | dict | None = None,
        feature_loss: ConfigDict | dict | None = None,
        content_loss: ConfigDict | dict | None = None,
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
        self.query_decoder = MODELS.build(query_decoder, default_args=dict(num_classes=num_classes, **given))
        self.criterion = None if criterion is None else MODELS.build(criterion)
        self.feature_loss = None if feature_loss is None else MODELS.build(feature_loss)
        self.content_loss = None if content_loss is None else MODELS.build(content_loss)
        if self.content_loss is not None and not hasattr(self.query_decoder, "query_feat"):
            raise ValueError(
                f"decode_head.content_loss: {type(self.query_decoder).__name__} has no learnt content (query_feat) to "
                "compare. Take the loss out, or compare mask embeddings by criterion.loss_orthogonality."
            )
        self.register_load_state_dict_pre_hook(adopt_head_keys)
        self.register_load_state_dict_pre_hook(_check_class_layer)

    @property
    def reads_boxes(self) -> bool:
        """Whether training needs boxes in the targets."""
        return self.criterion is not None and bool(self.criterion.box_losses)

    def forward(
        self,
        features: Sequence[Tensor],
        valid: Bool[Tensor, "B H W"] | None = None,
        *,
        last_only: bool = False,
    ) -> list[Prediction]:
        """One prediction per supervised layer, the answer last; with `last_only`, the answer alone.

        Args:
            features: the backbone's maps, fine to coarse.
            valid: which pixels lie on the image, not on padding; None where all do, or padding counts as image.
        """
        if valid is not None:
            cells = F.interpolate(valid.unsqueeze(1).float(), features[-1].shape[-2:], mode="nearest")
            valid = cells.squeeze(1).bool()
        if self.pixel_decoder is None:
            return self.query_decoder(features, last_only=last_only)
        return self.query_decoder(self.pixel_decoder(features, valid), last_only=last_only)

    def loss(
        self,
        features: Sequence[Tensor],
        targets: TargetBatch | Sequence[MaskTarget],
        valid: Bool[Tensor, "B H W"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Losses of all supervised layers; `targets` lie on the canvas of the images, one per image."""
        if self.criterion is None:
            raise ValueError("decode_head.criterion is None: this head cannot be trained. Give it a criterion.")
        predictions = self(features, valid)
        losses = self.criterion(predictions if self.deep_supervision else predictions[-1:], targets)
        if self.content_loss is not None:
            losses["loss_content"] = self.content_loss(self.query_decoder.query_feat.weight)
        if self.feature_loss is not None:
            return losses | self.feature_loss(features, targets)
        if isinstance(features, PartialMaps) and features.edge_logits.requires_grad:
            raise ValueError(
                "decode_head.feature_loss is None, but the backbone keeps tokens where it expects edges "
                "(sampler='edge') and nothing teaches it where they are. Set "
                "decode_head.feature_loss=dict(type='mmseg_m2f.TokenEdgeLoss'), or freeze the backbone."
            )
        return losses

    @torch.no_grad()
    def predict(self, features: Sequence[Tensor], valid: Bool[Tensor, "B H W"] | None = None) -> Prediction:
        """The last layer's prediction."""
        return self(features, valid, last_only=True)[-1]


def _check_class_layer(head: MaskHead, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Refuse, or where the user asked for it replace, a class layer of another size."""
    name = f"{prefix}query_decoder.cls_embed"
    stored = state_dict.get(f"{name}.weight")
    if stored is None or len(stored) == head.num_classes + 1:
        return
    if not head.replace_classifier:
        raise ValueError(
            f"The checkpoint's class layer ({name}) has {len(stored) - 1} classes, but decode_head.num_classes is "
            f"{head.num_classes}. Set num_classes={len(stored) - 1} to use the checkpoint as it is, or "
            "decode_head.replace_classifier=True to fine-tune it on the new classes."
        )
    for part, parameter in head.query_decoder.cls_embed.named_parameters():
        state_dict[f"{name}.{part}"] = parameter.detach().clone()
