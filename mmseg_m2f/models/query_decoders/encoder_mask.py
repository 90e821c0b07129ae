"""EoMT: a plain vision transformer whose last blocks are the query decoder (arXiv 2503.19108, section 3).

Deviations:
- Attention masks are the product of the mask embeddings with mask features resized to the patches (resizing commutes
  with the product) instead of resized mask logits: equal up to float rounding, and cheaper.
- Windows of semantic tests (`core.windows`, for all methods) have the crop size and stand side by side, the last one at
  the border; the authors spread them evenly, which differs from three windows on.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmseg_m2f.core.postprocess import resize_maps
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.channel_norm import ChannelNorm
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import FeatureSpec, MaskPrediction, TokenStream


@MODELS.register_module()
class EncoderMaskDecoder(nn.Module):
    """Runs a backbone's last blocks on queries and patches together.

    Gives one prediction before each of these blocks and one after the last; each has its own mask features, computed
    from the patches at this depth. In every block a query attends only to patches inside the mask that it predicted
    before, with a probability per block that is drawn for each image and query (see `set_attn_mask_probs`). Once all
    probabilities are 0, a test predicts after the last block alone. A `BackboneQueryDecoder`:
    `MaskHead(pixel_decoder=None)`, with a backbone that returns a `TokenStream`. Padding is treated as image, as
    published.

    Args:
        num_classes: K; one more class output means "no object".
        feature_spec: width and stride of the backbone's patches, and its number of joint blocks; the head passes it.
        num_queries: Q, the most segments an image can have.

    Raises:
        ValueError: the backbone returns maps alone.
    """

    attn_mask_probs: Tensor

    def __init__(self, num_classes: int, feature_spec: FeatureSpec, *, num_queries: int = 100) -> None:
        super().__init__()
        num_blocks = feature_spec.num_joint_blocks
        if not num_blocks:
            raise InvalidValueError(
                f"EncoderMaskDecoder: expected a backbone that leaves blocks to the queries, got maps of strides "
                f"{feature_spec.strides} alone. Use TimmTokenStream as model.backbone and no neck, or "
                "TimmPlainViT(as_tokens=True) and FrozenEncoderBlocks as model.neck."
            )
        (channels,), (stride,) = feature_spec.channels, feature_spec.strides
        self.query_feat = nn.Embedding(num_queries, channels)
        self.cls_embed = nn.Linear(channels, num_classes + 1)
        self.mask_embed = nn.Sequential(
            nn.Linear(channels, channels),
            nn.GELU(),
            nn.Linear(channels, channels),
            nn.GELU(),
            nn.Linear(channels, channels),
        )
        self.upscale = nn.Sequential(*(UpscaleBlock(channels) for _ in range(max(1, int(math.log2(stride)) - 2))))
        self.register_buffer("attn_mask_probs", torch.ones(num_blocks))
        self._remember((1.0,) * num_blocks)
        self.register_load_state_dict_post_hook(_read_attn_mask_probs)

    def set_attn_mask_probs(self, probs: Sequence[float]) -> None:
        """Set for each joint block the probability, in [0, 1], that a query of an image attends to its mask alone."""
        if tuple(probs) == self._host_probs:
            return
        self.attn_mask_probs.copy_(torch.tensor(probs))
        self._remember(tuple(probs))

    def _remember(self, probs: tuple[float, ...]) -> None:
        """Keep the probabilities on the host, so that no forward pass synchronises.

        `forward` reads `_masking` alone: a graph that is compiled for one of its three values is valid for all
        probabilities. With "by chance", a block of probability 0 gets a mask without effect, as in the authors' code.
        """
        self._host_probs = probs
        self._masking: Literal["always", "by chance", "never"] = (
            "always" if min(probs) == 1 else "never" if max(probs) == 0 else "by chance"
        )

    def graph_state(self) -> str:
        """What `forward` reads on the host: a recorded graph holds for one value of it."""
        return self._masking

    def forward(self, features: TokenStream, *, last_only: bool = False) -> list[MaskPrediction]:
        """Predictions before every joint block and after the last one, or the last one only."""
        stream = features
        queries = self.query_feat.weight.expand(stream.tokens.shape[0], -1, -1)
        tokens = torch.cat([queries, stream.tokens], 1)
        predictions = []
        for block, prob in zip(stream.blocks, self.attn_mask_probs, strict=True):
            may_attend = None
            if self._masking != "never" or not last_only:
                prediction = self._predict(tokens, stream)
                if not last_only:
                    predictions.append(prediction)
                if self._masking != "never":
                    may_attend = _may_attend(prediction, stream, prob if self._masking == "by chance" else None)
            tokens = block(tokens, may_attend)
        return [*predictions, self._predict(tokens, stream)]

    def _predict(self, tokens: Float[Tensor, "B N C"], stream: TokenStream) -> MaskPrediction:
        normed = stream.norm(tokens)
        queries = normed[:, : self.query_feat.num_embeddings]
        mask_features = self.upscale(stream.patch_map(normed))
        return MaskPrediction(self.cls_embed(queries), self.mask_embed(queries), mask_features)


class UpscaleBlock(nn.Module):
    """Doubles height and width: transposed convolution, then a depth-wise one and a norm over the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.activate = nn.GELU()
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = ChannelNorm(channels, eps=1e-6)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C 2*H 2*W"]:
        return self.norm(self.smooth(self.activate(self.upsample(x))))


@torch.no_grad()
def inside_logits(prediction: MaskPrediction, stream: TokenStream) -> Float[Tensor, "B Q N"]:
    """Mask logits of all queries at the patches."""
    small_features = resize_maps(prediction.mask_features, stream.grid).flatten(2)
    return torch.bmm(prediction.mask_embeddings, small_features)


@torch.no_grad()
def _may_attend(
    prediction: MaskPrediction, stream: TokenStream, prob: Float[Tensor, ""] | None = None
) -> Bool[Tensor, "B 1 N N"]:
    """True where a token (row) may attend to another: everywhere, but for queries only to patches inside their masks.

    Each query of an image is restricted with probability `prob`; None means 1 and draws no random numbers.
    """
    inside = inside_logits(prediction, stream) > 0
    if prob is not None:
        inside |= torch.rand(*inside.shape[:2], 1, device=inside.device) >= prob
    num_queries, num_patches = inside.shape[1:]
    num_tokens = num_queries + stream.tokens.shape[1]
    may_attend = inside.new_ones(inside.shape[0], 1, num_tokens, num_tokens)
    may_attend[:, 0, :num_queries, num_tokens - num_patches :] = inside
    return may_attend


def _read_attn_mask_probs(decoder: EncoderMaskDecoder, _: object) -> None:
    decoder._remember(tuple(decoder.attn_mask_probs.tolist()))
