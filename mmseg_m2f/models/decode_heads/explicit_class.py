"""Per-pixel head with explicit class embeddings (ECENet).

Boosting Semantic Segmentation from the Perspective of Explicit Class Embeddings, arXiv 2308.12894. Architecture and
weights of the losses are those of the released inference code; training code was not released. Our own definitions,
therefore: focal and dice loss of a class's mask are SegViT's, and the diversity loss is one minus the released
statistic's share of its largest value.

Where paper and released code differ, the code is the default:
- attention goes to the classes that score lowest (`attention.attn_sign=-1`); the paper writes +1;
- the gate of feature reconstruction has no sigmoid (`gate_act=None`).

The query has no activation, as the original code asks; its port runs a ReLU there. The masks that are compared with the
classes are the sum of all levels but the finest, as the released forward pass hands them to the loss.

Deviation: void pixels are left out of the mask losses; `void_is_background=True` trains them as outside every class.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine import dist
from mmengine.config import ConfigDict
from mmengine.structures import BaseDataElement
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from mmseg_m2f.core.sizes import is_known_equal
from mmseg_m2f.core.transfer import upload
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.class_attention import ClassAttention, ClassTokens, ClassUpdater
from mmseg_m2f.models.losses.map_losses import Rows, map_losses
from mmseg_m2f.models.necks.feature_reconstruction import FeatureReconstruction
from mmseg_m2f.models.sampling import FullMaskSampling
from mmseg_m2f.registry import MODELS
from mmseg_m2f.samples import read_targets
from mmseg_m2f.structures import MaskReadings, TargetBatch

#: Pixels of masks that are compared at a time.
_CHUNK_POINTS = 2**20


class ClassMasks(NamedTuple):
    """Outputs of the head for a batch.

    `logits` is the result, `pixel_logits` that of the pixel classifier alone. `mask_logits` are the masks of every
    level at the finest resolution, coarse to fine. `class_probs` is the probability of each class's own embedding for
    this class. `diverse` are the diverse halves of the rebuilt maps, see `FeatureReconstruction`.
    """

    logits: Float[Tensor, "B K H W"]
    pixel_logits: Float[Tensor, "B K H W"]
    mask_logits: tuple[Float[Tensor, "B K H W"], ...]
    class_probs: Float[Tensor, "B K"]
    diverse: tuple[Float[Tensor, "B _ _ _"], ...]


@MODELS.register_module()
class ExplicitClassHead(BaseDecodeHead):
    """Class embeddings computed from class masks, and masks computed from the embeddings, coarse to fine.

    The coarsest map gives one mask m₀ per class; pooled and projected, it is the class's embedding. Each finer map
    attends to the embeddings; its scores are the next masks, which update the embeddings. With the pixel classifier's
    logits z, the probabilities p of the embeddings for their own class and the masks m of all levels,
    `logits_k = z_k + p_k · sigmoid(Σ_l m_kl)`.

    Losses: `loss_ce` on the logits, `loss_mask` and `loss_dice` on the masks of the classes in the image, `loss_div` on
    the rebuilt maps.

    Args:
        in_channels: of the maps, fine to coarse, each half as large as the one before; multiples of 4.
        num_classes: K.
        in_index: which maps; the first ones unless given.
        channels: C, width of all layers after the maps.
        attention: arguments of `ClassAttention`: `num_heads`, `mlp_ratio`, `attn_sign`.
        pool_sizes: how masks become embeddings; see `ClassTokens`.
        gate_act: see `FeatureReconstruction`.
        void_is_background: whether void pixels lie outside every class or have weight 0 in the mask losses.
        loss_decode: losses of the logits; cross-entropy unless given.
        loss_mask, loss_dice, loss_div: focal loss times 5, dice loss times 2, `SpatialDiversityLoss` unless given.
        norm_cfg: batch norm unless given.
        options: further arguments of mmseg's `BaseDecodeHead`: `dropout_ratio`, `ignore_index`, `align_corners` …
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        num_classes: int,
        in_index: Sequence[int] | None = None,
        channels: int = 256,
        attention: Mapping[str, int | float] | None = None,
        pool_sizes: Sequence[int] = (1, 2, 3, 6),
        gate_act: str | None = None,
        void_is_background: bool = False,
        loss_decode: ConfigDict | dict | list | None = None,
        loss_mask: ConfigDict | dict | None = None,
        loss_dice: ConfigDict | dict | None = None,
        loss_div: ConfigDict | dict | None = None,
        norm_cfg: ConfigDict | dict | None = None,
        **options: object,
    ) -> None:
        _check_maps(in_channels, in_index)
        attention_options: dict[str, Any] = dict(num_heads=4) | dict(attention or {})
        num_heads = attention_options["num_heads"]
        if channels % num_heads:
            raise InvalidValueError(
                f"decode_head.attention.num_heads: expected a divisor of channels, {channels}, got {num_heads}."
            )
        norm_cfg = norm_cfg or dict(type="BN")
        super().__init__(
            list(in_channels),
            channels,
            num_classes=num_classes,
            in_index=list(range(len(in_channels)) if in_index is None else in_index),
            input_transform="multiple_select",
            norm_cfg=norm_cfg,
            loss_decode=loss_decode or dict(type="mmseg.CrossEntropyLoss"),
            **options,
        )
        num_levels = len(in_channels)
        self.reconstruction = FeatureReconstruction(in_channels, gate_act=gate_act, norm_cfg=norm_cfg)
        self.laterals = nn.ModuleList(nn.Conv2d(width, channels, 1, bias=False) for width in in_channels)
        self.first_masks = nn.Sequential(
            nn.Conv2d(channels, channels, 1, groups=num_heads, bias=False),
            nn.Conv2d(channels, num_classes, 1, bias=False),
        )
        # Coarse to fine, like all that follows.
        self.tokens = nn.ModuleList(
            ClassTokens(channels, num_classes=num_classes, pool_sizes=pool_sizes) for _ in in_channels
        )
        self.attentions = nn.ModuleList(ClassAttention(channels, **attention_options) for _ in in_channels[1:])
        self.updaters = nn.ModuleList(ClassUpdater(channels) for _ in in_channels[1:])
        self.class_embed = nn.Linear(channels, num_classes)
        self.upsamplings = nn.ModuleList(
            nn.Sequential(*(_GhostUpsampling(channels, norm_cfg) for _ in range(steps)))
            for steps in reversed(range(num_levels))
        )
        self.fusion = ConvModule(num_levels * channels, channels, 3, padding=1, norm_cfg=norm_cfg)
        self.void_is_background = void_is_background
        self.mask_losses = nn.ModuleDict(
            dict(
                loss_mask=MODELS.build(loss_mask or dict(type="mmseg_m2f.MaskFocalLoss", loss_weight=5.0)),
                loss_dice=MODELS.build(loss_dice or dict(type="mmseg_m2f.MaskDiceLoss", loss_weight=2.0)),
            )
        )
        self.loss_div = MODELS.build(loss_div or dict(type="mmseg_m2f.SpatialDiversityLoss"))

    def forward(self, inputs: Sequence[Tensor]) -> Float[Tensor, "B K H W"]:
        """Logits at the resolution of the finest map."""
        return self.describe(inputs).logits

    def loss(
        self,
        inputs: Sequence[Tensor],
        batch_data_samples: Sequence[BaseDataElement],
        train_cfg: ConfigDict | dict | None = None,
    ) -> dict[str, Tensor]:
        """All losses, and `acc_seg`."""
        outputs = self.describe(inputs)
        mask_losses = self._mask_losses(outputs.mask_logits, batch_data_samples)  # names labels that are no class
        losses = self.loss_by_feat(outputs.logits, batch_data_samples)
        return losses | mask_losses | dict(loss_div=self.loss_div(outputs.diverse))

    def describe(self, inputs: Sequence[Tensor]) -> ClassMasks:
        """Logits and the parts that they are computed from.

        Args:
            inputs: the backbone's maps.
        """
        rebuilt, diverse = zip(*self.reconstruction.reconstruct(self._transform_inputs(inputs)), strict=True)
        coarsest, *finer = [lateral(x) for lateral, x in zip(self.laterals, rebuilt, strict=True)][::-1]
        masks = [self.first_masks(coarsest)]
        classes = self.tokens[0](masks[0])
        maps = [coarsest]
        for tokens, attend, update, lateral in zip(self.tokens[1:], self.attentions, self.updaters, finer, strict=True):
            attended, scores = attend(lateral, classes)
            classes = update(tokens(scores), classes)
            maps.append(attended)
            masks.append(scores)
        pixel_logits = self.cls_seg(self._fuse(maps))
        with torch.autocast(pixel_logits.device.type, enabled=False):
            mask_logits = tuple(self._enlarge(x.float(), like=pixel_logits) for x in masks)
            class_probs = self.class_embed(classes.to(self.class_embed.weight.dtype)).float().softmax(-1)
            class_probs = class_probs.diagonal(dim1=1, dim2=2)
            logits = pixel_logits + class_probs[:, :, None, None] * _total(mask_logits).sigmoid()
        return ClassMasks(logits, pixel_logits, mask_logits, class_probs, diverse)

    def _fuse(self, maps: Sequence[Float[Tensor, "B C _ _"]]) -> Float[Tensor, "B C H W"]:
        enlarged = [upsample(x) for upsample, x in zip(self.upsamplings, maps, strict=True)]
        finest = enlarged[-1]
        return self.fusion(torch.cat([self._enlarge(x, like=finest) for x in enlarged[::-1]], 1))

    def _enlarge(self, x: Float[Tensor, "B C _ _"], *, like: Float[Tensor, "B _ H W"]) -> Float[Tensor, "B C H W"]:
        if is_known_equal(x.shape[-2:], like.shape[-2:]):
            return x
        return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=self.align_corners)

    def _mask_losses(
        self, mask_logits: Sequence[Float[Tensor, "B K H W"]], samples: Sequence[BaseDataElement]
    ) -> dict[str, Float[Tensor, ""]]:
        """Sums over the classes of every image, divided by their number (at least 1) per rank."""
        batch = read_targets(samples, self.num_classes, ignore_index=self.ignore_index)
        if self.void_is_background:
            batch = batch.with_void_as_background()
        images, segments, classes = _pairs(batch)
        supervised = _total(mask_logits[:-1])
        sampling = FullMaskSampling()

        def read(maps: Float[Tensor, "n H W"], rows: Rows) -> MaskReadings:
            return sampling.for_loss(maps, batch, images[rows], segments[rows])

        chunk = max(_CHUNK_POINTS // sampling.size_in_loss(batch), 1)
        losses = list(self.mask_losses.values())
        values = map_losses(supervised[images, classes], read, losses, chunk=chunk).sum(1)
        count = classes.new_full((), len(images), dtype=torch.float32)
        dist.all_reduce(count, "mean")
        return dict(zip(self.mask_losses, values / count.clamp(min=1), strict=True))


class _GhostUpsampling(nn.Module):
    """Doubles height and width: a 1×1 and a depth-wise convolution give 4 C channels, shuffled to pixels."""

    def __init__(self, channels: int, norm_cfg: ConfigDict | dict) -> None:
        super().__init__()
        wide = 2 * channels
        self.primary = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False), build_norm_layer(norm_cfg, wide)[1], nn.ReLU()
        )
        self.cheap = nn.Sequential(
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), build_norm_layer(norm_cfg, wide)[1], nn.ReLU()
        )

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H2 W2"]:
        primary = self.primary(x)
        return F.pixel_shuffle(torch.cat([primary, self.cheap(primary)], 1), 2)


def _total(masks: Sequence[Float[Tensor, "B K H W"]]) -> Float[Tensor, "B K H W"]:
    return sum(masks[1:], masks[0])


def _pairs(targets: TargetBatch) -> tuple[Int[Tensor, "N"], Int[Tensor, "N"], Int[Tensor, "N"]]:
    """Image, segment and class of every segment; counts are known on the host, so that nothing waits."""
    images = [image for image, count in enumerate(targets.num_segments) for _ in range(count)]
    segments = [segment for count in targets.num_segments for segment in range(count)]
    both = upload(torch.tensor([images, segments], dtype=torch.long), targets.labels.device)
    return both[0], both[1], targets.labels[both[0], both[1]]


def _check_maps(in_channels: Sequence[int], in_index: Sequence[int] | None) -> None:
    if len(in_channels) < 2:
        raise InvalidValueError(
            f"decode_head.in_channels: expected two maps or more, fine to coarse, got {[*in_channels]}. Name the "
            "channels of several outputs of the backbone, or put a feature pyramid between."
        )
    if in_index is not None and len(in_index) != len(in_channels):
        raise InvalidValueError(
            f"decode_head.in_index: expected one index for each of in_channels {[*in_channels]}, got {[*in_index]}."
        )
