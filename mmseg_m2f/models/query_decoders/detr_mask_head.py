"""DETR's mask head (arXiv 2005.12872, section 4.2): attention maps of each query, refined by an FPN.

Parameter sizes are the authors'; their names are ours (`checkpoints.detr_names` maps them).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.transformer import flatten_maps
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import PixelFeatures, PixelSpec

#: Queries per chunk in inference; each has 264 channels at stride 32 and fewer up to stride 4.
_CHUNK_SIZE = 25


@dataclass(frozen=True)
class LazyMasks:
    """Masks of one batch, computed on demand for given queries.

    `attention` sums to 1 over heads and cells for each query; `projected` and the maps in `finer` are per image. Losses
    ask for masks outside of autocast; they are computed in the precision `autocast` that the head ran in, if any.
    """

    head: "DetrMaskHead"
    attention: Float[Tensor, "B Q M H W"]
    projected: Float[Tensor, "B C H W"]
    finer: tuple[Float[Tensor, "B _ _ _"], ...]
    autocast: torch.dtype | None = None

    def __call__(self, images: Int[Tensor, "N"], queries: Int[Tensor, "N"]) -> Float[Tensor, "N H2 W2"]:
        """Mask logits of query `queries[n]` of image `images[n]` at the resolution of the finest map."""
        if torch.compiler.is_exporting():  # the number of chunks would be that of the example
            return self._refine(images, queries)
        size = max(len(queries), 1) if torch.is_grad_enabled() else _CHUNK_SIZE
        chunks = zip(images.split(size), queries.split(size), strict=True)
        return torch.cat([self._refine(*chunk) for chunk in chunks])

    def _refine(self, images: Int[Tensor, "N"], queries: Int[Tensor, "N"]) -> Float[Tensor, "N H2 W2"]:
        x = torch.cat([self.projected[images], self.attention[images, queries]], 1)
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            return self.head.refine(x, self.finer, images)


@MODELS.register_module()
class DetrMaskHead(nn.Module):
    """Attention of queries to the memory, refined with the backbone's three finer maps to masks at stride 4.

    Args:
        pixel_spec: channels of `DetrPixelDecoder`'s maps; the decoder passes it.
        num_heads: M, attention maps per query.
    """

    def __init__(self, pixel_spec: PixelSpec, *, num_heads: int = 8) -> None:
        super().__init__()
        channels = pixel_spec.memory
        if len(pixel_spec.levels) != 3:
            raise InvalidValueError(
                f"DetrMaskHead: expected three maps of the backbone below its coarsest, got {len(pixel_spec.levels)}. "
                "Set the backbone's out_indices=(0, 1, 2, 3)."
            )
        self.num_heads = num_heads
        self.q_linear = nn.Linear(channels, channels)
        self.k_linear = nn.Linear(channels, channels)
        for linear in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        first = pixel_spec.mask_features + num_heads
        widths = [first, *(channels // 2**step for step in range(1, 5))]  # 264, 128, 64, 32, 16
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in zip([first, *widths[:-1]], widths, strict=True)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths)
        self.adapters = nn.ModuleList(
            nn.Conv2d(c, width, 1) for c, width in zip(pixel_spec.levels, widths[1:4], strict=True)
        )
        self.out_conv = nn.Conv2d(widths[-1], 1, 3, padding=1)
        for conv in [*self.convs, *self.adapters, self.out_conv]:
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)

    def forward(self, queries: Float[Tensor, "B Q C"], features: PixelFeatures) -> LazyMasks:
        """Lazy masks of the last layer's normed queries."""
        attention = self.attend(queries, features.memory, features.valid)
        device = attention.device.type
        casts = device != "meta" and torch.is_autocast_enabled(device)  # "meta" has no autocast
        autocast = torch.get_autocast_dtype(device) if casts else None
        return LazyMasks(self, attention, features.mask_features, features.levels, autocast)

    def attend(
        self,
        queries: Float[Tensor, "B Q C"],
        memory: Float[Tensor, "B C H W"],
        valid: Bool[Tensor, "B H W"] | None = None,
    ) -> Float[Tensor, "B Q M H W"]:
        """Attention maps: softmax of `q_m · k_m / √(C/M)` over heads and cells together; 0 on padding."""
        q = self.q_linear(queries).unflatten(-1, (self.num_heads, -1))
        k = self.k_linear(flatten_maps([memory])).unflatten(-1, (self.num_heads, -1))
        scores = torch.einsum("bqmc,bnmc->bqmn", q * q.shape[-1] ** -0.5, k)
        if valid is not None:
            scores = scores.masked_fill(~valid.flatten(1)[:, None, None], -torch.inf)
        return scores.flatten(2).softmax(-1).view_as(scores).unflatten(-1, memory.shape[-2:])

    def refine(
        self, x: Float[Tensor, "N C H W"], finer: Sequence[Float[Tensor, "B _ _ _"]], images: Int[Tensor, "N"]
    ) -> Float[Tensor, "N H2 W2"]:
        """Mask logits from projection and attention maps of queries of these images; `finer` are coarse to fine."""
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = F.relu(norm(conv(x)))
            if 1 <= index <= len(finer):
                detail = self.adapters[index - 1](finer[index - 1])
                x = F.interpolate(x, detail.shape[-2:], mode="nearest") + detail[images]
        return self.out_conv(x).squeeze(1)
