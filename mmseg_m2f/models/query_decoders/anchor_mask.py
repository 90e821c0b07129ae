"""Mask DINO's query decoder (arXiv 2206.02777, section 3): queries with boxes, and masks from the same queries.

Parameter names are this package's; no code is adapted from the authors' (IDEA-Research/MaskDINO, Apache-2.0).
Deviations:
- Levels stand coarse to fine, as everywhere here; the authors order them both ways and number the sizes of proposed
  boxes by their order, for which `proposal_sizes` stands.
- Of the two rules for boxes around masks, the authors' "bitmask": the last row and column count.
"""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmseg_m2f.core.boxes import inverse_sigmoid, to_centres
from mmseg_m2f.core.chunks import ChunkBudget
from mmseg_m2f.core.postprocess import tight_boxes
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.anchor_decoder import AnchorDecoder, AnchorState
from mmseg_m2f.layers.transformer import flatten_maps
from mmseg_m2f.models.query_decoders.denoising import DenoisingQueries, NoisySegments
from mmseg_m2f.models.query_decoders.query_mlp import QueryMLP
from mmseg_m2f.models.query_decoders.query_selection import PROPOSAL_SIZES, QuerySelection
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import (
    Denoising,
    MaskPrediction,
    PixelFeatures,
    PixelSpec,
    TargetBatch,
    TrainingPredictions,
)

#: Where the boxes of chosen cells start.
_BOX_INIT = ("encoder", "masks", "centred_masks")
_CLASS_ACTIVATION = ("sigmoid", "softmax")
#: Mask logits from which boxes are made.
_CHUNK = ChunkBudget(cpu=2**22, gpu=2**26)
#: Pixels. Centres of coarse cells lie on borders of the mask's pixels, where rounding would choose the pixel.
_ASIDE = 1 / 64


@MODELS.register_module()
class AnchorMaskDecoder(nn.Module):
    """Queries with boxes, which each layer reads inside of and refines; classes, boxes and masks after every layer.

    Queries are the surest cells of the pixel decoder's maps, and these cells are trained as a prediction of their own
    ("encoder"); or they are learnt. In training, noisy copies of the segments are decoded beside the queries. Gives
    `num_layers + 1` predictions; the first is that of the queries before any layer. Padding is treated as image, as
    published, and boxes are fractions of the padded canvas.

    All predictions share the class layer, the two MLPs and one norm ν. After layer i they see ν(ν(X_i)) for classes and
    masks, ν(X_i) for the predicted box and X_i for the box that the next layer reads, as the published weights do.

    Args:
        num_classes: K.
        pixel_spec: channels of the pixel decoder's maps; the head passes it.
        num_queries: Q, the most segments an image can have.
        select: choose cells as queries; else learn contents and boxes (semantic models).
        box_init: where the boxes of chosen cells start: at those predicted by the "encoder", around the "masks"
            predicted from the cells, or around the part of each mask at the centre of the encoder's box, see
            `boxes_at` ("centred_masks"). Early in training masks also cover other segments, and boxes around all of a
            mask tell little. "masks" unless given; learnt queries have none.
        proposal_sizes: which end of the levels proposes the smallest boxes. The published instance and panoptic weights
            were trained with "coarsest_smallest", the default; "finest_smallest" is DINO's. Learnt queries have none.
        class_activation: "sigmoid", K yes-or-no questions, or "softmax" over the classes and one more output, "no
            object" (semantic models).
        denoising: arguments of `DenoisingQueries`; `dict()` is as published, None trains without noisy copies.
    """

    #: What boxes are fractions of.
    box_frame = "canvas"

    def __init__(
        self,
        num_classes: int,
        pixel_spec: PixelSpec,
        *,
        num_queries: int = 300,
        num_layers: int = 9,
        num_heads: int = 8,
        num_points: int = 4,
        feedforward_channels: int = 2048,
        select: bool = True,
        box_init: str | None = None,
        proposal_sizes: str | None = None,
        class_activation: str = "sigmoid",
        denoising: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        channels = _channels(pixel_spec)
        for name, value in dict(box_init=box_init, proposal_sizes=proposal_sizes).items():
            if not select and value is not None:
                raise InvalidValueError(
                    f"AnchorMaskDecoder: {name} is about cells that are chosen as queries, and select=False learns the "
                    f"queries; got {name}={value!r}. Leave it out."
                )
        box_init, proposal_sizes = box_init or "masks", proposal_sizes or "coarsest_smallest"
        _require_one_of("box_init", box_init, _BOX_INIT)
        _require_one_of("proposal_sizes", proposal_sizes, PROPOSAL_SIZES)
        _require_one_of("class_activation", class_activation, _CLASS_ACTIVATION)
        self.num_queries, self.box_init, self.class_activation = num_queries, box_init, class_activation
        self.transformer_decoder = AnchorDecoder(
            channels,
            num_layers=num_layers,
            num_levels=len(pixel_spec.levels),
            num_heads=num_heads,
            num_points=num_points,
            feedforward_channels=feedforward_channels,
        )
        self.cls_embed = nn.Linear(channels, num_classes + (class_activation == "softmax"))
        self.mask_embed = QueryMLP(channels, pixel_spec.mask_features)
        self.box_embed = QueryMLP(channels, 4)
        for parameter in self.box_embed[-1].parameters():
            nn.init.zeros_(parameter)
        self.selection = QuerySelection(channels, proposal_sizes=proposal_sizes) if select else None
        if not select:
            self.query_feat = nn.Embedding(num_queries, channels)
            self.query_boxes = nn.Embedding(num_queries, 4)
        self.denoising = None
        if denoising is not None:
            self.denoising = DenoisingQueries(num_classes, channels, **_checked_denoising(denoising))

    def forward(
        self, features: PixelFeatures, *, last_only: bool = False, num_layers: int | None = None
    ) -> list[MaskPrediction]:
        """Predictions before the first layer and after every layer, or the last one only.

        Args:
            num_layers: run the first layers only.
        """
        memory, sizes = _memory(features)
        content, boxes, _ = self._queries(memory, sizes, features.mask_features)
        states = self._decode(content, boxes, memory, sizes, num_layers=num_layers)
        return [self._predict(*state, features.mask_features) for state in (states[-1:] if last_only else states)]

    def predict_for_training(self, features: PixelFeatures, targets: TargetBatch) -> TrainingPredictions:
        """The same predictions, that of the chosen cells, and those of noisy copies of the segments."""
        memory, sizes = _memory(features)
        content, boxes, encoder = self._queries(memory, sizes, features.mask_features)
        noisy = None if self.denoising is None else self.denoising(targets)
        may_attend, num_slots = None, 0
        if noisy is not None:
            num_slots = noisy.content.shape[1]
            may_attend = noisy.may_attend(content.shape[1]).expand(len(content), -1, -1)
            content = torch.cat([noisy.content.to(content.dtype), content], 1)
            boxes = torch.cat([noisy.boxes.to(boxes.dtype), boxes], 1)
        states = self._decode(content, boxes, memory, sizes, may_attend=may_attend)
        predictions = [self._predict(*state, features.mask_features) for state in states]
        layers = [each.of_queries(slice(num_slots, None)) for each in predictions]
        return TrainingPredictions(layers, encoder, self._denoised(noisy, predictions))

    def _denoised(self, noisy: NoisySegments | None, predictions: list[MaskPrediction]) -> Denoising | None:
        """What is predicted of the copies; learnt queries have no first prediction of them, as published."""
        if noisy is None:
            return None
        slots = slice(noisy.content.shape[1])
        of_copies = [each.of_queries(slots) for each in (predictions if self.selection else predictions[1:])]
        return Denoising(of_copies, noisy.assignment(len(of_copies)), noisy.groups)

    def _queries(
        self, memory: Float[Tensor, "B N C"], sizes: list[tuple[int, int]], mask_features: Float[Tensor, "B C H W"]
    ) -> tuple[Float[Tensor, "B Q C"], Float[Tensor, "B Q 4"], MaskPrediction | None]:
        """Contents and boxes before the first layer, and the prediction of the chosen cells."""
        if self.selection is None:
            shape = (memory.shape[0], -1, -1)
            boxes = self.query_boxes.weight.sigmoid()
            return self.query_feat.weight.expand(shape), boxes.expand(shape), None
        with torch.autocast(memory.device.type, enabled=False):  # in half precision many cells are equally sure
            content, box_logits = self.selection(
                memory, sizes, classify=self.cls_embed, locate=self.box_embed, num_queries=self.num_queries
            )
        boxes = box_logits.sigmoid()
        encoder = self._predict(content, boxes, mask_features)
        if self.box_init != "encoder":
            centres = boxes[..., :2] if self.box_init == "centred_masks" else None
            boxes = inverse_sigmoid(boxes_around_masks(encoder, centres).to(boxes.dtype)).sigmoid()
        return content.detach(), boxes.detach(), encoder

    def _decode(
        self,
        content: Float[Tensor, "B Q C"],
        boxes: Float[Tensor, "B Q 4"],
        memory: Float[Tensor, "B N C"],
        sizes: list[tuple[int, int]],
        *,
        may_attend: Bool[Tensor, "B Q Q"] | None = None,
        num_layers: int | None = None,
    ) -> list[AnchorState]:
        """Queries and boxes before the first layer and after every layer, in float32 or more."""
        with torch.autocast(memory.device.type, enabled=False):
            states = self.transformer_decoder(
                content, boxes, memory, sizes, box_embed=self.box_embed, may_attend=may_attend, num_layers=num_layers
            )
        return [AnchorState(content, boxes), *states]

    def _predict(
        self, queries: Float[Tensor, "B Q C"], boxes: Float[Tensor, "B Q 4"], mask_features: Float[Tensor, "B C H W"]
    ) -> MaskPrediction:
        """Classes and masks from the queries after the norm: for those after a layer the second time."""
        normed = self.transformer_decoder.post_norm(queries)
        return MaskPrediction(self.cls_embed(normed), self.mask_embed(normed), mask_features, boxes)


@torch.no_grad()
def boxes_around_masks(
    prediction: MaskPrediction, centres: Float[Tensor, "B Q 2"] | None = None
) -> Float[Tensor, "B Q 4"]:
    """Centre x, centre y, width, height of the cells with a positive mask logit; zeros where there is none.

    Mask logits exist for a chunk of queries at a time.

    Args:
        centres: x, y in [0, 1]; boxes are then those of `boxes_at`.
    """
    features = prediction.mask_features
    height, width = features.shape[-2:]
    if torch.compiler.is_exporting():  # the number of chunks would be that of the example
        chunk = prediction.mask_embeddings.shape[1]
    else:
        chunk = max(_CHUNK.fitting(len(features) * height * width, features.device), 1)
    boxes = []
    for number, embeddings in enumerate(prediction.mask_embeddings.split(chunk, 1)):
        inside = torch.einsum("bqc,bchw->bqhw", embeddings, features) > 0
        if centres is None:
            boxes.append(tight_boxes(inside.flatten(0, 1)).unflatten(0, inside.shape[:2]))
        else:
            boxes.append(boxes_at(inside, centres[:, number * chunk : (number + 1) * chunk]))
    corners = torch.cat(boxes, 1)
    # Divided per axis: a tensor of sizes would have to be uploaded.
    return to_centres(torch.stack([corners[..., 0::2] / width, corners[..., 1::2] / height], -1).flatten(-2))


def boxes_at(masks: Bool[Tensor, "B Q H W"], centres: Float[Tensor, "B Q 2"]) -> Float[Tensor, "B Q 4"]:
    """x1 y1 x2 y2 around the part of each mask at a place; the last two are exclusive.

    The rows of the box reach from that of the place to the first ones, above and below, without a pixel of the mask; so
    do its columns. An axis along which the mask misses the place has the extent of the whole mask, 0 if it is empty.

    Args:
        centres: x, y of the places in [0, 1].
    """
    left, right = _run_around(masks.any(-2), centres[..., 0])
    top, bottom = _run_around(masks.any(-1), centres[..., 1])
    return torch.stack([left, top, right, bottom], -1).to(centres.dtype)


def _run_around(filled: Bool[Tensor, "B Q N"], centre: Float[Tensor, "B Q"]) -> tuple[Tensor, Tensor]:
    """First filled place of the run of filled places around a centre in [0, 1], and the first empty one after it."""
    size = filled.shape[-1]
    places = torch.arange(size, device=filled.device)
    own = (centre * size + _ASIDE).long().clamp(0, size - 1).unsqueeze(-1)
    found = filled.gather(-1, own)
    before, after = (~filled & (places < own)) & found, (~filled & (places > own)) & found
    first = places.where(filled, size).amin(-1).where(filled.any(-1), 0)  # of the whole mask
    last = (places + 1).where(filled, 0).amax(-1)
    first = torch.maximum(first, (places + 1).where(before, 0).amax(-1))
    return first, torch.minimum(last, places.where(after, size).amin(-1))


def _memory(features: PixelFeatures) -> tuple[Float[Tensor, "B N C"], list[tuple[int, int]]]:
    """Cells of all levels in float32 or more, and the levels' sizes."""
    tokens = flatten_maps(features.levels)
    sizes = [(level.shape[-2], level.shape[-1]) for level in features.levels]
    return tokens.to(torch.promote_types(tokens.dtype, torch.float32)), sizes


def _require_one_of(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InvalidValueError(f"AnchorMaskDecoder: {name}: expected one of {', '.join(choices)}, got {value!r}.")


def _checked_denoising(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    known = [name for name, each in signature(DenoisingQueries).parameters.items() if each.kind is each.KEYWORD_ONLY]
    unknown = [key for key in settings if key not in known]
    if unknown:
        raise InvalidValueError(
            f"AnchorMaskDecoder: denoising: expected a dict of {', '.join(known)}, got {unknown[0]!r}. dict() is as "
            "published."
        )
    return settings


def _channels(pixel_spec: PixelSpec) -> int:
    if len(set(pixel_spec.levels)) != 1:
        raise InvalidValueError(
            f"AnchorMaskDecoder: expected maps of one width, got levels of {pixel_spec.levels} channels. Use "
            "DeformablePixelDecoder as decode_head.pixel_decoder."
        )
    return pixel_spec.levels[0]
